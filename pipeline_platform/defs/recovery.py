"""dropped_events → recovered_events: what the old pipeline dropped is found, then put into production.

Materializing dropped_events alone is the dry run.

Launched for an hour or as a backfill over any range, which is one run, hour by hour. Idempotent: an hour that is done
again adds nothing, and what a killed run moved stays moved. A window that may still change fails with its reason:
launch it again later.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from pipeline_platform.defs.hours import HOURS_SO_FAR, hour_of
from pipeline_platform.defs.owners import OWNED, OWNERS
from pipeline_platform.defs.reconciliation import RECONCILED, reconcile_hour, window_of
from pipeline_platform.defs.resources import Platform
from pipeline_platform.errors import PipelineError
from pipeline_platform.recovery.dropped import Dropped, Window, find_dropped, tenant_ids_of
from pipeline_platform.recovery.recover import recover

DROPPED, RECOVERED = dg.AssetKey("dropped_events"), dg.AssetKey("recovered_events")

NOTHING_MISSING = dg.AssetCheckSpec(
    "nothing_missing",
    asset=RECOVERED,
    description="Compared again after the recovery, every event that was accepted in the hour is in production.",
)

_common: dict[str, Any] = {
    "group_name": "migration",
    "owners": OWNERS,
    "code_version": "1",
    "kinds": {"postgres"},
    "partitions_def": HOURS_SO_FAR,
    "skippable": True,
}


class RecoveryConfig(dg.Config):
    """What a recovery does."""

    reason: str = Field(default="launched in Dagster", description="Why; goes into the audit log.")
    tenants: list[str] = Field(default=[], description="Only these tenants, by name; none: all.")


@dg.multi_asset(
    name="recover_hours",
    description="Finds each hour's dropped events and moves them into production.",
    specs=[
        dg.AssetSpec(
            DROPPED,
            deps=[RECONCILED],
            description="Events that were accepted while the old pipeline was production and are not in its output: by "
            "tenant and by the stage that reported the loss.",
            **_common,
        ),
        dg.AssetSpec(
            RECOVERED,
            deps=[DROPPED],
            description="The dropped events, in production: moved there from shadow.events as the platform had "
            "delivered them. No row that production has is touched.",
            **_common,
        ),
    ],
    check_specs=[NOTHING_MISSING],
    can_subset=True,
    partitions_def=HOURS_SO_FAR,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
    pool="hours",
)
def recover_hours(context: dg.AssetExecutionContext, platform: Platform, config: RecoveryConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return _recover_hours(context, platform, config)


def _recover_hours(
    context: dg.AssetExecutionContext, platform: Platform, config: RecoveryConfig
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    missing: dict[str, int] = {}
    moves = RECOVERED in context.selected_asset_keys
    with platform.connect() as conn:
        tenant_ids = tenant_ids_of(conn, config.tenants)
        for key in context.partition_keys:
            hour = hour_of(key)
            window = Window(*window_of(conn, hour), tenant_ids)
            dropped = find_dropped(conn, window)
            yield dg.AssetMaterialization(DROPPED, partition=key, metadata=_found(dropped))
            missing[key] = dropped.events
            context.log.info(f"{key}: {dropped.events:,} dropped, {dropped.already:,} recovered before")
            if not moves:
                continue
            try:
                done = recover(conn, window, reason=config.reason)
            except PipelineError as error:
                raise dg.Failure(f"hour {key}: {error}", allow_retries=False) from error
            yield dg.AssetMaterialization(
                RECOVERED,
                partition=key,
                metadata={
                    "recovered": done.recovered,
                    "recovered_in_all": dropped.already + done.recovered,
                    "recovery_id": done.recovery_id or "nothing to do",
                    "by_tenant": _tenants(done.tenants),
                },
            )
            compared = reconcile_hour(conn, hour).totals
            missing[key] = compared.missing if tenant_ids is None else done.missing_after
            yield _verdict(key, missing[key], compared.extra, compared.mismatched)
    if NOTHING_MISSING.key in context.selected_asset_check_keys:
        left = {key: events for key, events in missing.items() if events}
        yield dg.AssetCheckResult(
            asset_key=RECOVERED,
            check_name=NOTHING_MISSING.name,
            passed=not left,
            metadata={"missing": dg.MetadataValue.json(left)},
        )


def _found(dropped: Dropped) -> dict[str, Any]:
    stages = "\n".join(f"* lost at **{stage}**: {events:,}" for stage, events in dropped.stages.items())
    return {
        "dropped": dropped.events,
        "recovered_before": dropped.already,
        "stages": dg.MetadataValue.md(stages or "nothing was dropped"),
        "by_tenant": _tenants(dropped.tenants),
        "samples": dg.MetadataValue.json(dropped.samples),
    }


def _tenants(tenants: dict[str, int]) -> dg.TableMetadataValue:
    rows = [dg.TableRecord({"tenant": name, "events": events}) for name, events in list(tenants.items())[:20]]
    return dg.MetadataValue.table(rows, dg.TableSchema([dg.TableColumn("tenant"), dg.TableColumn("events", "number")]))


def _verdict(key: str, missing: int, extra: int, mismatched: int) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=RECOVERED,
        check_name=NOTHING_MISSING.name,
        passed=not missing,
        partition=key,
        metadata={"missing": missing, "extra": extra, "mismatched": mismatched},
    )


recovery_dry_run_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "recovery_dry_run_job",
    selection=dg.AssetSelection.assets(DROPPED).without_checks(),
    description="Says what a recovery would add, by hour, tenant and stage; changes nothing.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)

recovery_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "recovery_job",
    selection=dg.AssetSelection.assets(DROPPED, RECOVERED),
    description="Recovers what the old pipeline dropped of an hour, or of a range of hours in one run; compares again "
    "afterwards. recovery_dry_run_job says before what it would add.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
