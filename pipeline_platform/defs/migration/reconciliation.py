"""reconciled_hours: the old pipeline's output compared with the platform's; a partition is an hour of `received_at`.

The current hour is a partition too: its settled part is compared, and the whole when it is over. A difference fails the
check, not the run. The results are in the schema `reconcile`, and as CSV and Parquet in PIPELINE_HOME/reconciliation.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform import stores
from pipeline_platform.db import queries
from pipeline_platform.defs import automation
from pipeline_platform.defs.hours import HOUR, HOURS_SO_FAR, SAME_HOUR, hour_of
from pipeline_platform.defs.outside import LEGACY_OUTPUT
from pipeline_platform.defs.policies import HOURS_POOL, HOURS_RUNS, OWNED, OWNERS, RETRY, requests_over
from pipeline_platform.defs.recording import Event, hour_record, over_hours
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.tables import tenant_table
from pipeline_platform.defs.verdicts import hour_verdict, last_verdict, red_hours
from pipeline_platform.migration.reconcile import Reconciliation, reconcile, settled_until
from pipeline_platform.settings import Settings

_SQL = queries("control_plane")
_COLUMNS = ("accepted", "matched", "mismatched", "dropped", "missing", "extra", "duplicates", "recovered")

RECONCILED = dg.AssetKey("reconciled_hours")

# What is recorded of an hour that has just begun.
NOT_YET: dict[str, Any] = {
    "result": "Nothing of this hour can be compared yet: the old pipeline may still deliver it (settle_s). Launch the "
    "hour again later, or leave it to the schedule hourly_reconciliation.",
    "settled": False,
}

NO_DRIFT = dg.AssetCheckSpec(
    "no_drift",
    asset=RECONCILED,
    description="Both pipelines delivered the same: nothing missing in production, nothing that only the old pipeline "
    "has, no other content. One event is drift. What the old pipeline dropped and can be recovered is a warning.",
)


@dg.multi_asset(
    name="reconcile_hours",
    description="Compares each hour's events in both pipelines, by identity and by content.",
    specs=[
        dg.AssetSpec(
            RECONCILED,
            deps=[dg.AssetDep("delivered_events", partition_mapping=SAME_HOUR), LEGACY_OUTPUT],
            group_name="migration",
            owners=OWNERS,
            code_version="1",
            kinds={"postgres"},
            partitions_def=HOURS_SO_FAR,
            description="What both pipelines delivered of the events accepted in the hour: matched, mismatched by "
            "field, dropped by the old pipeline and at which stage, missing in production, extra. `settled` says "
            "whether the numbers are final.",
        )
    ],
    check_specs=[NO_DRIFT],
    partitions_def=HOURS_SO_FAR,
    backfill_policy=HOURS_RUNS,
    retry_policy=RETRY,
    pool=HOURS_POOL,
)
def reconcile_hours(context: dg.AssetExecutionContext, platform: Platform):
    # Without a return type: Dagster would read one as the types of the outputs.
    return over_hours(context, _reconcile_hours(context, platform))


def _reconcile_hours(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Event]:
    settings = platform.settings()
    verdicts: list[dg.AssetCheckEvaluation] = []
    with platform.connect() as conn:
        for key in context.partition_keys:
            for event in compare_hour(conn, settings, key):
                verdicts += [event] if isinstance(event, dg.AssetCheckEvaluation) else []
                yield event
    red = red_hours(context.instance, NO_DRIFT, verdicts)
    yield last_verdict(NO_DRIFT, red, len(verdicts), dg.AssetCheckSeverity.WARN)


def compare_hour(
    conn: psycopg.Connection[Any], settings: Settings, key: str
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Compare one hour and store the result; its record and its verdict."""
    # Imported here: pandas takes a second to import, which would delay the loading of definitions.
    from pipeline_platform.migration.reconcile.export import export

    window = window_of(conn, hour_of(key))
    if window is None:
        yield hour_record(RECONCILED, key, NOT_YET)
        return
    found = reconcile(conn, *window)
    export(conn, found.start, found.end, f"{stores.files_root(settings)}/reconciliation")
    yield hour_record(RECONCILED, key, described(found))
    yield _verdict(found, key)


def window_of(conn: psycopg.Connection[Any], hour: datetime) -> tuple[datetime, datetime] | None:
    """An hour's window; of the current hour its settled part. None if nothing of it is settled yet."""
    end = min(hour + HOUR, settled_until(conn))
    return (hour, end) if hour < end else None


def described(found: Reconciliation) -> dict[str, Any]:
    """The metadata of a comparison: numbers to plot over the hours, a table by tenant, and a summary."""
    totals = found.totals
    rows = [{"tenant": each.name, **{name: getattr(each.counts, name) for name in _COLUMNS}} for each in found.tenants]
    return {
        "result": _result(found),
        "summary": dg.MetadataValue.md(_summary(found)),
        **{name: getattr(totals, name) for name in _COLUMNS},
        "drift": totals.missing + totals.extra + totals.mismatched,
        "settled": found.is_settled,
        "compared": found.coverage["compared"],
        "seconds": found.seconds,
        "by_tenant": tenant_table(rows, _COLUMNS),
    }


def _result(found: Reconciliation) -> str:
    totals = found.totals
    final = "" if found.is_settled else " Not final yet."
    return (
        f"{found.coverage['compared']:,} of {found.coverage['accepted']:,} accepted events compared: "
        f"{totals.matched:,} matched, {totals.mismatched:,} mismatched, {totals.dropped:,} dropped by the old "
        f"pipeline, {totals.missing:,} missing in production, {totals.extra:,} extra.{final}"
    )


def _summary(found: Reconciliation) -> str:
    lines: list[str] = []
    lines += [f"* not final: {why}" for why in found.waits_for]
    lines += [f"* dropped at **{stage}**: {events:,}" for stage, events in found.stages.items()]
    lines += [f"* `{field}` differs in {events:,}" for field, events in found.fields.items()]
    if found.totals.missing:
        lines.append("\n**Next:** materialize `dropped_events` over the same hours; it says how to recover them.")
    return "\n".join(lines) or "Both pipelines delivered the same."


def _verdict(found: Reconciliation, key: str) -> dg.AssetCheckEvaluation:
    totals = found.totals
    recoverable = totals.extra + totals.mismatched == 0 and totals.missing <= totals.dropped - totals.recovered
    return hour_verdict(
        NO_DRIFT,
        key,
        passed=not found.has_drift,
        said=f"{totals.missing:,} missing, {totals.extra:,} extra, {totals.mismatched:,} mismatched",
        severity=dg.AssetCheckSeverity.WARN if recoverable else dg.AssetCheckSeverity.ERROR,
        metadata={
            "missing": totals.missing,
            "extra": totals.extra,
            "mismatched": totals.mismatched,
            "parity": found.has_parity,
            "samples": dg.MetadataValue.json([dict(sample) for sample in _plain(found)]),
        },
    )


def _plain(found: Reconciliation) -> Iterator[dict[str, Any]]:
    for sample in found.samples:
        yield {
            name: value if isinstance(value, dict | list | int | None) else str(value) for name, value in sample.items()
        }


reconcile_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "reconcile_job",
    selection=dg.AssetSelection.assets(RECONCILED),
    description="Compares both pipelines for an hour, or a range of hours in one run. The schedule does it hourly.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)


@dg.schedule(  # pyright: ignore[reportUnknownMemberType, reportArgumentType]
    job=reconcile_job,
    # An old pipeline with the default settle_s has delivered everything ten minutes after the hour.
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    default_status=automation.SCHEDULES,
    metadata=OWNED,
    description="While a migration is on: compares every hour that is over and was not compared finally.",
)
def hourly_reconciliation(context: dg.ScheduleEvaluationContext, platform: Platform):
    with platform.connect() as conn:
        due = [hour for (hour,) in conn.execute(_SQL["unreconciled_hours"]).fetchall()]
    if not due:
        return dg.SkipReason("no hour of a migration waits to be compared")
    return requests_over(context, due)
