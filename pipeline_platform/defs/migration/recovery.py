"""recovery_job: moves what the old pipeline dropped into production, hour by hour, and compares again.

It changes production, so it is a job with a reason, and no asset that a page launches with many others. It is
idempotent: repeating an hour adds nothing, and events that a killed run moved stay moved. A window that may still
change fails with its reason: launch it again later.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from pipeline_platform.defs.hours import HOURS_SO_FAR, hour_of, keys_of
from pipeline_platform.defs.launchpad import prefilled, require_reason
from pipeline_platform.defs.migration.dropped import DROPPED, NOTHING_MISSING, find_hour, tenants_table
from pipeline_platform.defs.migration.reconciliation import NO_DRIFT, compare_hour, window_of
from pipeline_platform.defs.policies import HOURS_POOL, OWNED, OWNERS, PERSONAL_DATA, RETRY, in_plain_words
from pipeline_platform.defs.recording import hour_record
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.verdicts import last_evaluation, red_hours
from pipeline_platform.errors import NotNowError
from pipeline_platform.migration.recovery.dropped import Window, find_dropped, tenant_ids_of
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.private_dagster import log_verdict

RECOVERED = dg.AssetKey("recovered_events")

recovered_events = dg.AssetSpec(
    RECOVERED,
    deps=[DROPPED],
    group_name="migration",
    owners=OWNERS,
    tags=PERSONAL_DATA,
    code_version="3",
    kinds={"postgres"},
    partitions_def=HOURS_SO_FAR,
    description="The dropped events, in production: moved there from shadow.events as the platform had delivered them. "
    "No row that production has is touched. It cannot be materialized here: recovery_job does it, with a reason.",
)


class RecoveryConfig(dg.Config):
    """What a recovery does."""

    hours: str = Field(
        description="One hour, as 2026-11-27-14:00, or a range, as [2026-11-27-14:00...2026-11-27-16:00]. The summary "
        "of dropped_events has it ready to paste."
    )
    reason: str = Field(description="Why, in a few words; goes into the audit log. There is no default.")
    dry_run: bool = Field(
        default=True,
        description="true: say what it would move, and change nothing. false: move it into production. The default is "
        "true, because this changes production.",
    )
    tenants: list[str] = Field(
        default=[],
        description="Only these tenants, by name. Empty, the default: all.",
    )


@dg.op(
    description="Moves each hour's dropped events into production, and compares the hour again.",
    pool=HOURS_POOL,
    retry_policy=RETRY,
)
def recover_hours(context: dg.OpExecutionContext, platform: Platform, config: RecoveryConfig) -> None:
    require_reason(config.reason)
    with in_plain_words(), platform.connect() as conn:
        keys = keys_of(config.hours)
        tenant_ids = tenant_ids_of(conn, config.tenants)
        if config.dry_run:
            _say(context, conn, keys, tenant_ids)
            return
        moved = 0
        for key in keys:
            with in_plain_words(f"hour {key}: "):
                moved += _recover_hour(context, conn, platform, key, tenant_ids, config)
        for spec in (NO_DRIFT, NOTHING_MISSING):
            log_verdict(context, last_evaluation(spec, red_hours(context.instance, spec, ()), len(keys)))
        said = f"{moved:,} events of {len(keys):,} hours were moved into production."
        context.log.info(said)
        context.add_output_metadata({"result": said, "recovered": moved})


def _say(
    context: dg.OpExecutionContext, conn: psycopg.Connection[Any], keys: Sequence[str], tenant_ids: list[int] | None
) -> None:
    found = [find_dropped(conn, Window(*_window(conn, hour_of(key)), tenant_ids)).events for key in keys]
    said = f"{sum(found):,} events of {len(keys):,} hours would be moved into production. `dry_run: false` does it."
    context.log.info(said)
    context.add_output_metadata({"result": said, "recovered": 0})


def _window(conn: psycopg.Connection[Any], hour: datetime) -> tuple[datetime, datetime]:
    window = window_of(conn, hour)
    if window is None:
        raise NotNowError(f"nothing of the hour {hour:%Y-%m-%d %H}:00 can be settled yet (settle_s): try again later")
    return window


def _recover_hour(
    context: dg.OpExecutionContext, conn: psycopg.Connection[Any], platform: Platform, key: str,
    tenant_ids: list[int] | None, config: RecoveryConfig,
) -> int:  # fmt: skip
    """Move one hour and record what it shows now. Returns the number of events that were moved."""
    done = recover(conn, Window(*_window(conn, hour_of(key)), tenant_ids), reason=config.reason)
    in_all = done.dropped.already + done.recovered
    metadata: dict[str, Any] = {
        "result": f"{done.recovered:,} events were moved into production, {in_all:,} in all; {done.missing_after:,} "
        f"are still missing. {config.reason}",
        "recovered": done.recovered,
        "recovered_in_all": in_all,
        "recovery_id": done.recovery_id or "nothing to do",
        "by_tenant": tenants_table(done.tenants),
    }
    context.log_event(hour_record(RECOVERED, key, metadata))
    settings = platform.settings()
    # After a recovery, what is still missing is an error.
    severity = dg.AssetCheckSeverity.ERROR
    for event in chain(compare_hour(conn, settings, key), find_hour(conn, settings, key, None, key, severity=severity)):
        if isinstance(event, dg.AssetCheckEvaluation):
            log_verdict(context, event)
        else:
            context.log_event(event)
    return done.recovered


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Moves what the old pipeline dropped into production, then compares again. Give the hours and a reason "
    "in the **Launchpad**; the asset `dropped_events` shows what is missing and has this config ready. A dry run "
    "unless `dry_run` is false. No row that production has is touched. How: "
    "`docs/how-to/migrate-from-your-pipeline.md`.",
    config=prefilled("recover_hours", RecoveryConfig),
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
def recovery_job() -> None:
    recover_hours()
