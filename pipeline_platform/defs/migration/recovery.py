"""dropped_events → recovered_events: finds what the old pipeline dropped and puts it into production.

By default it is a dry run: it stops after dropped_events.

It is launched for an hour, or as a backfill over any range, which is one run that goes hour by hour. It is idempotent:
repeating an hour adds nothing, and events that a killed run moved stay moved. A window that may still change fails with
its reason: launch it again later.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from pipeline_platform.defs.hours import HOURS_SO_FAR, hour_of
from pipeline_platform.defs.launchpad import example, require_reason
from pipeline_platform.defs.migration.reconciliation import RECONCILED, reconcile_hour, window_of
from pipeline_platform.defs.policies import HOURS_POOL, ONE_RUN, OWNED, OWNERS, RETRY, in_plain_words
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.summaries import look_further, markdown_table
from pipeline_platform.migration.recovery.dropped import Dropped, Window, find_dropped, tenant_ids_of
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.settings import Settings

DROPPED, RECOVERED = dg.AssetKey("dropped_events"), dg.AssetKey("recovered_events")

_MOVE = example("recover_hours", reason="dropped by the old pipeline", dry_run=False)

NOTHING_MISSING = dg.AssetCheckSpec(
    "nothing_missing",
    asset=RECOVERED,
    description="Compared again after the recovery, every event that was accepted in the hour is in production.",
)

_common: dict[str, Any] = {
    "group_name": "migration",
    "owners": OWNERS,
    "code_version": "2",
    "kinds": {"postgres"},
    "partitions_def": HOURS_SO_FAR,
    "skippable": True,
}


class RecoveryConfig(dg.Config):
    """What a recovery does."""

    reason: str = Field(description="Why, in a few words; goes into the audit log. There is no default: be asked.")
    dry_run: bool = Field(
        default=True,
        description="true: say what was dropped, and change nothing. false: move it into production. The default is "
        "true because production has users.",
    )
    tenants: list[str] = Field(
        default=[],
        description="Only these tenants, by name. Empty, the default: all, since the old pipeline dropped of all.",
    )


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
    backfill_policy=ONE_RUN,
    retry_policy=RETRY,
    pool=HOURS_POOL,
)
def recover_hours(context: dg.AssetExecutionContext, platform: Platform, config: RecoveryConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return _recover_hours(context, platform, config)


def _recover_hours(
    context: dg.AssetExecutionContext, platform: Platform, config: RecoveryConfig
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    require_reason(config.reason)
    missing: dict[str, int] = {}
    moves = RECOVERED in context.selected_asset_keys and not config.dry_run
    checks = NOTHING_MISSING.key in context.selected_asset_check_keys
    settings = platform.settings()
    with in_plain_words(), platform.connect() as conn:
        tenant_ids = tenant_ids_of(conn, config.tenants)
        for key in context.partition_keys:
            hour = hour_of(key)
            window = Window(*window_of(conn, hour), tenant_ids)
            dropped = find_dropped(conn, window)
            yield dg.AssetMaterialization(DROPPED, partition=key, metadata=_found(dropped, settings))
            missing[key] = dropped.events
            context.log.info(f"{key}: {dropped.events:,} dropped, {dropped.already:,} recovered before")
            if not moves:
                if checks:
                    yield _verdict(key, dropped.events, severity=dg.AssetCheckSeverity.WARN)
                continue
            with in_plain_words(f"hour {key}: "):
                done = recover(conn, window, reason=config.reason)
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
    if checks:
        left = {key: events for key, events in missing.items() if events}
        yield dg.AssetCheckResult(
            asset_key=RECOVERED,
            check_name=NOTHING_MISSING.name,
            passed=not left,
            # A dry run is expected to find missing events, so it only warns.
            severity=dg.AssetCheckSeverity.ERROR if moves else dg.AssetCheckSeverity.WARN,
            metadata={"missing": dg.MetadataValue.json(left)},
        )


def _found(dropped: Dropped, settings: Settings) -> dict[str, Any]:
    return {
        "summary": dg.MetadataValue.md(_summary(dropped, settings)),
        "dropped": dropped.events,
        "recovered_before": dropped.already,
        "by_tenant": _tenants(dropped.tenants),
        "samples": dg.MetadataValue.json(dropped.samples),
    }


def _summary(dropped: Dropped, settings: Settings) -> str:
    lost = markdown_table(["lost at", "events"], list(dropped.stages.items()))
    parts = [
        f"**{dropped.events:,} events are missing in production**; {dropped.already:,} were recovered before.",
        *([lost, f"**Next:** launch `recovery_job` over the same hours with:\n\n{_MOVE}"] if dropped.events else []),
        look_further(settings, "migrate-from-your-pipeline"),
    ]
    return "\n\n".join(parts)


def _tenants(tenants: dict[str, int]) -> dg.TableMetadataValue:
    rows = [dg.TableRecord({"tenant": name, "events": events}) for name, events in list(tenants.items())[:20]]
    return dg.MetadataValue.table(rows, dg.TableSchema([dg.TableColumn("tenant"), dg.TableColumn("events", "number")]))


def _verdict(
    key: str, missing: int, extra: int = 0, mismatched: int = 0,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckEvaluation:  # fmt: skip
    return dg.AssetCheckEvaluation(
        asset_key=RECOVERED,
        check_name=NOTHING_MISSING.name,
        passed=not missing,
        partition=key,
        severity=severity,
        metadata={"missing": missing, "extra": extra, "mismatched": mismatched},
    )


recovery_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "recovery_job",
    selection=dg.AssetSelection.assets(DROPPED, RECOVERED),
    description="Finds what the old pipeline dropped and moves it into production, then compares again. **Materialize "
    "all…**, choose one hour or a range, and paste this config under **Config**:\n\n"
    + example("recover_hours", reason="dropped by the old pipeline", tenants=[], dry_run=True)
    + "\n\nSo it changes nothing: see what is missing at the asset `dropped_events`. `dry_run: false` moves it. No row "
    "that production has is touched. How: `docs/how-to/migrate-from-your-pipeline.md`.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
