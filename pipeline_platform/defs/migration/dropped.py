"""dropped_events: what the old pipeline dropped and production lacks. It changes nothing; recovery_job moves it.

The current hour is a partition too: its settled part is searched.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from pipeline_platform.defs.hours import HOURS_SO_FAR, hour_of
from pipeline_platform.defs.launchpad import example
from pipeline_platform.defs.migration.reconciliation import NOT_YET, RECONCILED, window_of
from pipeline_platform.defs.policies import HOURS_POOL, HOURS_RUNS, OWNERS, RETRY, in_plain_words
from pipeline_platform.defs.recording import Event, hour_record, hours_text, over_hours
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.summaries import look_further, markdown_table
from pipeline_platform.defs.tables import COUNTED
from pipeline_platform.defs.verdicts import hour_verdict, last_verdict, red_hours
from pipeline_platform.migration.recovery.dropped import Dropped, Window, find_dropped, tenant_ids_of
from pipeline_platform.settings import Settings

DROPPED = dg.AssetKey("dropped_events")
_TENANTS_SHOWN = 20

NOTHING_MISSING = dg.AssetCheckSpec(
    "nothing_missing",
    asset=DROPPED,
    description="Every event that was accepted in the hour is in production. A warning until a recovery has run.",
)


class DroppedConfig(dg.Config):
    """Whose events to look for."""

    tenants: list[str] = Field(
        default=[],
        description="Only these tenants, by name. Empty, the default: all.",
    )


@dg.multi_asset(
    name="find_dropped_events",
    description="Finds each hour's dropped events; changes nothing.",
    specs=[
        dg.AssetSpec(
            DROPPED,
            deps=[RECONCILED],
            group_name="migration",
            owners=OWNERS,
            code_version="3",
            kinds={"postgres"},
            partitions_def=HOURS_SO_FAR,
            description="Events that were accepted while the old pipeline was production and are not in its output: by "
            "tenant and by the stage that reported the loss. Nothing is changed by it; recovery_job moves them.",
        )
    ],
    check_specs=[NOTHING_MISSING],
    partitions_def=HOURS_SO_FAR,
    backfill_policy=HOURS_RUNS,
    retry_policy=RETRY,
    pool=HOURS_POOL,
)
def find_dropped_events(context: dg.AssetExecutionContext, platform: Platform, config: DroppedConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return over_hours(context, _find_dropped_events(context, platform, config))


def _find_dropped_events(
    context: dg.AssetExecutionContext, platform: Platform, config: DroppedConfig
) -> Iterator[Event]:
    settings = platform.settings()
    verdicts: list[dg.AssetCheckEvaluation] = []
    with in_plain_words(), platform.connect() as conn:
        tenant_ids = tenant_ids_of(conn, config.tenants)
        span = hours_text(context.partition_keys)
        for key in context.partition_keys:
            for event in find_hour(conn, settings, key, tenant_ids, span):
                verdicts += [event] if isinstance(event, dg.AssetCheckEvaluation) else []
                yield event
    red = red_hours(context.instance, NOTHING_MISSING, verdicts)
    yield last_verdict(NOTHING_MISSING, red, len(verdicts), dg.AssetCheckSeverity.WARN)


def find_hour(
    conn: psycopg.Connection[Any], settings: Settings, key: str, tenant_ids: Sequence[int] | None, span: str,
    *, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:  # fmt: skip
    """The record of one hour and its verdict. span: the hours to recover next. A part of the tenants is not judged."""
    window = window_of(conn, hour_of(key))
    if window is None:
        yield hour_record(DROPPED, key, NOT_YET)
        return
    dropped = find_dropped(conn, Window(*window, tenant_ids))
    yield hour_record(DROPPED, key, _found(dropped, settings, span))
    if tenant_ids is None:
        yield hour_verdict(
            NOTHING_MISSING,
            key,
            passed=not dropped.events,
            said=f"{dropped.events:,} events are missing in production",
            severity=severity,
            metadata={"missing": dropped.events},
        )


def _found(dropped: Dropped, settings: Settings, span: str) -> dict[str, Any]:
    return {
        "result": f"{dropped.events:,} events are missing in production; {dropped.already:,} were recovered before.",
        "summary": dg.MetadataValue.md(_summary(dropped, settings, span)),
        "dropped": dropped.events,
        "recovered_before": dropped.already,
        "by_tenant": tenants_table(dropped.tenants),
        "samples": dg.MetadataValue.json(dropped.samples),
    }


def _summary(dropped: Dropped, settings: Settings, span: str) -> str:
    lost = markdown_table(["lost at", "events"], list(dropped.stages.items()))
    move = example("recover_hours", hours=span, reason="dropped by the old pipeline", dry_run=False)
    parts = [
        *([lost, f"**Next:** launch `recovery_job` with this config:\n\n{move}"] if dropped.events else []),
        look_further(settings, "migrate-from-your-pipeline"),
    ]
    return "\n\n".join(parts)


def tenants_table(tenants: dict[str, int]) -> dg.TableMetadataValue:
    """Events by tenant, the largest tenants only."""
    rows = list(tenants.items())[:_TENANTS_SHOWN]
    records = [dg.TableRecord({"tenant": name, "events": events}) for name, events in rows]
    return dg.MetadataValue.table(records, COUNTED)
