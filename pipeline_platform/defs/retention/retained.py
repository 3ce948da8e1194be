"""Retention: drops the batches of hours that were sealed longer ago than the retention, unless they are still needed.

The keeper of a worker pool does the same; this is a fallback and keeps a record. The metadata names the hours that are
kept, each with its reason. An operator acts when the check fails, a day later.
"""

from datetime import timedelta
from typing import Any

import dagster as dg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.defs.hours import key_of
from pipeline_platform.defs.policies import OWNED, OWNERS, RETRY
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.retention.archived import ARCHIVED
from pipeline_platform.queue.keeper import drop_old_hours

_SQL = queries("control_plane")

RETAINED = dg.AssetKey("retained_hours")

# Work that waits out an outage keeps its hour: a day is long enough for that, and short enough for the disk.
_GRACE = timedelta(hours=24)

NOTHING_OVERDUE = dg.AssetCheckSpec(
    "nothing_overdue",
    asset=RETAINED,
    description="No hour is kept a day longer than its retention; `refused` says what needs it where one is.",
)


@dg.asset(
    key=RETAINED,
    deps=[ARCHIVED],
    description="The hours whose batches are kept for replay and recovery, and what their retention dropped.",
    group_name="retention",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
    # Its schedule runs once an hour.
    freshness_policy=dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=2), fail_window=timedelta(hours=6)),
    check_specs=[NOTHING_OVERDUE],
    retry_policy=RETRY,
)
def retained_hours(platform: Platform) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
    settings = platform.settings()
    retention = settings.retention
    with platform.connect() as conn:
        refused = drop_old_hours(conn, retention, archived_only=bool(settings.archive_url))
        with conn.cursor(row_factory=dict_row) as cursor:
            kept = cursor.execute(_SQL["retained"]).fetchone() or {}
        overdue = [
            key_of(hour)
            for (hour,) in conn.execute(_SQL["overdue_hours"], {"retention": retention, "grace": _GRACE}).fetchall()
        ]
    oldest = kept.pop("oldest")
    metadata: dict[str, Any] = {**kept, "refused_hours": len(refused), "overdue_hours": len(overdue)}
    metadata["oldest"] = dg.MetadataValue.timestamp(oldest) if oldest else "none"
    metadata["refused"] = dg.MetadataValue.md("\n".join(f"* {why}" for why in refused.values()) or "none")
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name=NOTHING_OVERDUE.name,
                passed=not overdue,
                metadata={"overdue": dg.MetadataValue.json(overdue), "grace_h": _GRACE // timedelta(hours=1)},
            )
        ],
    )


retention_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "retention_job",
    selection=dg.AssetSelection.assets(ARCHIVED, RETAINED),
    description="Archives hours that are past retention, where archives are kept, and drops their batches.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)

retention_schedule = dg.ScheduleDefinition(
    name="hourly_retention",
    job=retention_job,
    # Not at the full hour, when hours are sealed and processed.
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retention, once an hour.",
    metadata=OWNED,
)
