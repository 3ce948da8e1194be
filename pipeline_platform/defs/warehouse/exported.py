"""exported_hours: each delivered hour as a Parquet file with a manifest, proven against production and the account.

An hour whose rows changed (late imports, redelivery, replays, recovery, erasure) is exported as a new version. A launch
of an unchanged hour reads its file back and writes nothing. When the numbers differ, nothing is published: the check
names the hour and the tenants, and the run fails after its other hours.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from pipeline_platform.defs import automation, columns
from pipeline_platform.defs.events.processing import DELIVERED
from pipeline_platform.defs.hours import HOURS, hour_of
from pipeline_platform.defs.policies import (
    HOURS_POOL,
    HOURS_RUNS,
    OWNED,
    OWNERS,
    PERSONAL_DATA,
    RETRY,
    in_plain_words,
    requests_over,
)
from pipeline_platform.defs.recording import Event, hour_record, over_hours, recorded
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.verdicts import hour_verdict, last_verdict, red_hours
from pipeline_platform.warehouse.content import NumbersDifferError
from pipeline_platform.warehouse.hours import due_hours, export_hour
from pipeline_platform.warehouse.versions import Exported, remove_replaced

_RANGES_MAX = 4

EXPORTED = dg.AssetKey("exported_hours")

_common: dict[str, Any] = {
    "deps": [DELIVERED],
    "group_name": "warehouse",
    "owners": OWNERS,
    "kinds": {"parquet"},
    "tags": PERSONAL_DATA,
    "code_version": "1",
    "metadata": columns.EXPORTED_FILE,
}

EXPORTS_ARE_OFF = dg.AssetSpec(
    EXPORTED,
    description="Delivered hours as Parquet files with manifests. Exports are off: set PIPELINE_WAREHOUSE_URL to a "
    "directory or an address (s3://…), then start the platform again.",
    **_common,
)

SAME_AS_DELIVERED = dg.AssetCheckSpec(
    "same_as_delivered",
    asset=EXPORTED,
    description="The file of the hour, read back, has the same events of each tenant as analytics.events, and as many "
    "as the account delivered.",
)


@dg.multi_asset(
    name="export_hours",
    description="Exports each hour that is new or changed, and verifies the others.",
    specs=[
        dg.AssetSpec(
            EXPORTED,
            description="Delivered hours as Parquet files with manifests (counts by tenant, digests, versions of "
            "schema and code) below PIPELINE_WAREHOUSE_URL. `current.json` of an hour names its current version.",
            partitions_def=HOURS,
            # Its schedule runs once an hour.
            freshness_policy=dg.FreshnessPolicy.time_window(
                warn_window=timedelta(hours=3), fail_window=timedelta(hours=6)
            ),
            **_common,
        )
    ],
    check_specs=[SAME_AS_DELIVERED],
    partitions_def=HOURS,
    backfill_policy=HOURS_RUNS,
    retry_policy=RETRY,
    pool=HOURS_POOL,
)
def export_hours(context: dg.AssetExecutionContext, platform: Platform):
    # Without a return type: Dagster would read one as the types of the outputs.
    return over_hours(context, _export(context, platform))


def _export(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Event]:
    settings = platform.settings()
    done = recorded(context)
    verdicts: list[dg.AssetCheckEvaluation] = []
    with in_plain_words(), platform.connect() as conn:
        # Reading a busy hour may take longer than the statement time-out.
        conn.execute("SET statement_timeout = 0")
        for key in context.partition_keys:
            if (EXPORTED, key) in done:
                continue
            try:
                exported = export_hour(conn, settings, hour_of(key))
            except NumbersDifferError as error:
                verdicts.append(hour_verdict(SAME_AS_DELIVERED, key, passed=False, said=str(error), metadata={}))
            else:
                yield hour_record(EXPORTED, key, _described(exported))
                verdicts.append(_verdict(exported, key))
            yield verdicts[-1]
        remove_replaced(conn, settings)
    yield last_verdict(SAME_AS_DELIVERED, red_hours(context.instance, SAME_AS_DELIVERED, verdicts), len(verdicts))
    if wrong := [verdict for verdict in verdicts if not verdict.passed]:
        raise dg.Failure(
            f"{len(wrong)} of {len(verdicts)} hours were not exported. {wrong[0].description}", allow_retries=False
        )


def _described(exported: Exported) -> dict[str, Any]:
    if exported.version is None:
        return {"result": "Nothing was received in this hour, so there is no file.", "events": 0}
    did = "exported" if exported.is_new else "unchanged since its export; the file was read back and is whole"
    return {
        "result": f"Version {exported.version}: {exported.events:,} events of {exported.tenants:,} tenants, {did}.",
        "version": exported.version,
        "events": exported.events,
        "tenants": exported.tenants,
        "bytes": exported.bytes,
        "is_new": exported.is_new,
        "address": exported.address,
    }


def _verdict(exported: Exported, key: str) -> dg.AssetCheckEvaluation:
    said = f"the file, production and the account agree on {exported.events:,} events"
    return hour_verdict(SAME_AS_DELIVERED, key, passed=True, said=said, metadata={"events": exported.events})


exports_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "exports_job",
    selection=dg.AssetSelection.assets(EXPORTED),
    description="Exports an hour, or a range of hours in one run: new and changed hours as a new version. The schedule "
    "does it hourly.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)


@dg.schedule(  # pyright: ignore[reportUnknownMemberType, reportArgumentType]
    job=exports_job,
    # By then the sensor sealed_hours has had the last hour finished.
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    default_status=automation.SCHEDULES,
    metadata=OWNED,
    description="Exports the delivered hours that are new or changed (late imports, redelivery, replays, recovery, "
    "erasure).",
)
def hourly_exports(context: dg.ScheduleEvaluationContext, platform: Platform):
    with platform.connect() as conn:
        first = hour_of(HOURS.get_first_partition_key() or "")
        due = due_hours(conn, platform.settings(), first)
    if not due:
        return dg.SkipReason("no hour was delivered or changed since it was exported")
    # The next hourly run takes the rest. Scattered hours that a replay changed would need one run each.
    return requests_over(context, due, most=_RANGES_MAX)
