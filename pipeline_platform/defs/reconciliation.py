"""reconciled_hours: the old pipeline's output compared with the platform's; a partition is an hour of `received_at`.

The current hour is a partition too: its settled part is compared, and the whole when it is over. A difference fails the
check, not the run. The results are in the schema `reconcile`, and as CSV and Parquet in PIPELINE_HOME/reconciliation.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.db import queries
from pipeline_platform.defs import automation
from pipeline_platform.defs.hours import HOUR, HOURS_SO_FAR, hour_of, key_of, ranges
from pipeline_platform.defs.owners import OWNED, OWNERS
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.tables import tenant_table
from pipeline_platform.migration.reconcile import Reconciliation, reconcile, settled_until

_SQL = queries("control_plane")
_COLUMNS = ("accepted", "matched", "mismatched", "dropped", "missing", "extra", "duplicates", "recovered")
_HOURS_A_RUN_MAX = 96
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

RECONCILED = dg.AssetKey("reconciled_hours")

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
            deps=[dg.AssetKey("delivered_events")],
            group_name="migration",
            owners=OWNERS,
            code_version="1",
            kinds={"postgres"},
            partitions_def=HOURS_SO_FAR,
            skippable=True,
            description="What both pipelines delivered of the events accepted in the hour: matched, mismatched by "
            "field, dropped by the old pipeline and at which stage, missing in production, extra. `settled` says "
            "whether the numbers are final.",
        )
    ],
    check_specs=[NO_DRIFT],
    partitions_def=HOURS_SO_FAR,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
    pool="hours",
)
def reconcile_hours(context: dg.AssetExecutionContext, platform: Platform):
    # Without a return type: Dagster would read one as the types of the outputs.
    return _reconcile_hours(context, platform)


def _reconcile_hours(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    # Imported here: pandas takes a second to import, which would delay the loading of definitions.
    from pipeline_platform.migration.reconcile.export import export

    drifting: list[str] = []
    with platform.connect() as conn:
        for key in context.partition_keys:
            found = reconcile_hour(conn, hour_of(key))
            export(conn, found.start, found.end, platform.settings().home / "reconciliation")
            yield dg.AssetMaterialization(RECONCILED, partition=key, metadata=described(found))
            yield _verdict(found, key)
            if found.has_drift:
                drifting.append(key)
    yield dg.AssetCheckResult(
        asset_key=RECONCILED,
        check_name=NO_DRIFT.name,
        passed=not drifting,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"drifting_hours": dg.MetadataValue.json(drifting)},
    )


def window_of(conn: psycopg.Connection[Any], hour: datetime) -> tuple[datetime, datetime]:
    """An hour's window; of the current hour its settled part. Failure if nothing is settled yet."""
    end = min(hour + HOUR, settled_until(conn))
    if end <= hour:
        raise dg.Failure(f"nothing of hour {key_of(hour)} can be settled yet (settle_s): try again later")
    return hour, end


def reconcile_hour(conn: psycopg.Connection[Any], hour: datetime) -> Reconciliation:
    """Compare an hour and store the result."""
    return reconcile(conn, *window_of(conn, hour))


def described(found: Reconciliation) -> dict[str, Any]:
    """The metadata of a comparison: numbers to plot over the hours, a table by tenant, and a summary."""
    totals = found.totals
    rows = [{"tenant": each.name, **{name: getattr(each.counts, name) for name in _COLUMNS}} for each in found.tenants]
    return {
        "summary": dg.MetadataValue.md(_summary(found)),
        **{name: getattr(totals, name) for name in _COLUMNS},
        "drift": totals.missing + totals.extra + totals.mismatched,
        "settled": found.is_settled,
        "compared": found.coverage["compared"],
        "seconds": found.seconds,
        "by_tenant": tenant_table(rows, _COLUMNS),
    }


def _summary(found: Reconciliation) -> str:
    lines = [f"{found.coverage['compared']:,} of {found.coverage['accepted']:,} accepted events compared."]
    lines += [f"* not final: {why}" for why in found.waits_for]
    lines += [f"* dropped at **{stage}**: {events:,}" for stage, events in found.stages.items()]
    lines += [f"* `{field}` differs in {events:,}" for field, events in found.fields.items()]
    if found.totals.missing:
        lines.append(f"\n{found.totals.missing:,} are missing in production: launch `recovery_job`.")
    return "\n".join(lines)


def _verdict(found: Reconciliation, key: str) -> dg.AssetCheckEvaluation:
    totals = found.totals
    recoverable = totals.extra + totals.mismatched == 0 and totals.missing <= totals.dropped - totals.recovered
    return dg.AssetCheckEvaluation(
        asset_key=RECONCILED,
        check_name=NO_DRIFT.name,
        passed=not found.has_drift,
        partition=key,
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
    return [
        dg.RunRequest(
            run_key=f"{context.scheduled_execution_time.isoformat()} {key_of(piece[0])}",
            tags={_RANGE_START: key_of(piece[0]), _RANGE_END: key_of(piece[-1])},
        )
        for piece in ranges(due, _HOURS_A_RUN_MAX)
    ]
