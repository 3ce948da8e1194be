"""accepted_events → enriched_events → delivered_events: an hour of `received_at` is a partition of each.

Live workers deliver events within milliseconds; these assets finish an hour and prove it. One step takes a range hour
by hour through all three stages and records each stage before the next. So the results of a failed or killed run are
kept. An operator runs the same range again: finished hours take a moment, and no event is delivered twice.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.db import queries
from pipeline_platform.defs.account_check import ACCOUNT_HOLDS, check_hour, conclude
from pipeline_platform.defs.hours import HOURS, hour_of, key_of
from pipeline_platform.defs.owners import OWNED, OWNERS
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.stages import Metadata, accept_stage, deliver_stage, enrich_stage
from pipeline_platform.errors import is_bad_data, is_transient, without_values

_SQL = queries("control_plane")

ACCEPTED, ENRICHED, DELIVERED = (
    dg.AssetKey(name) for name in ("accepted_events", "enriched_events", "delivered_events")
)

_STAGES: dict[dg.AssetKey, Callable[..., Metadata]] = {
    ACCEPTED: accept_stage,
    ENRICHED: enrich_stage,
    DELIVERED: deliver_stage,
}

_common: dict[str, Any] = {
    "group_name": "events",
    "owners": OWNERS,
    "code_version": "1",
    "partitions_def": HOURS,
    # Each hour is recorded by its own event; an output would record all of them again at the end.
    "skippable": True,
}

_SPECS = [
    dg.AssetSpec(
        ACCEPTED,
        description="What was received in the hour, sealed: nothing can arrive in it any more. Received, "
        "accepted and rejected by tenant; batches; original and stored bytes.",
        kinds={"postgres"},
        **_common,
    ),
    dg.AssetSpec(
        ENRICHED,
        deps=[ACCEPTED],
        description="The hour's accepted events, all processed: whatever the workers left is drained by "
        "their own engine, look-ups of tenant, user and group included. Waits for what a live "
        "worker holds.",
        kinds={"python", "redis"},
        **_common,
    ),
    dg.AssetSpec(
        DELIVERED,
        deps=[ENRICHED],
        description="What became of the hour's events: delivered to analytics.events, duplicate, "
        "dead-lettered or discarded, by tenant; and the time from received_at to the "
        "delivering commit.",
        kinds={"postgres", "table"},
        # An hour is sealed when it is over and processed within minutes, also if nothing was received.
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(minutes=90), fail_window=timedelta(hours=3)
        ),
        **_common,
    ),
]


@dg.multi_asset(
    name="process_hours",
    description="Takes each hour through its stages, in order, and records it before the next.",
    specs=_SPECS,
    check_specs=[ACCOUNT_HOLDS],
    can_subset=True,
    partitions_def=HOURS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
    pool="hours",
)
def process_hours(context: dg.AssetExecutionContext, platform: Platform):
    # Without a return type: Dagster would read one as the types of the outputs.
    return _process(context, platform)


process_hours_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "process_hours_job",
    selection=dg.AssetSelection.assets(ACCEPTED, ENRICHED, DELIVERED),
    description="Seals, drains and proves hours: one, or a range in one run. The sensor sealed_hours "
    "starts it. For one urgent hour launch it by hand: a backfill waits up to 30 s for its "
    "daemon.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)


def _process(
    context: dg.AssetExecutionContext, platform: Platform
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult]:
    settings = platform.settings()
    recorded = _recorded(context)
    verdicts: list[dg.AssetCheckEvaluation] = []
    with retried_where_it_helps("connecting"), platform.connect() as conn:
        for key in _hours(context, conn):
            hour = hour_of(key)
            with retried_where_it_helps(f"hour {key}"):
                for asset_key, stage in _STAGES.items():
                    if asset_key in context.selected_asset_keys and (asset_key, key) not in recorded:
                        yield dg.AssetMaterialization(asset_key, partition=key, metadata=stage(conn, settings, hour))
                if ACCOUNT_HOLDS.key in context.selected_asset_check_keys:
                    verdicts.append(check_hour(conn, hour))
                    yield verdicts[-1]
    if verdicts:
        yield from conclude(verdicts)


def _hours(context: dg.AssetExecutionContext, conn: psycopg.Connection[Any]) -> Sequence[str]:
    """The run's partitions. The check alone may run without any: it then covers every sealed hour that is kept."""
    if context.has_partition_key or context.has_partition_key_range:
        return context.partition_keys
    return [key_of(hour) for hour, _ in conn.execute(_SQL["sealed_hours"]).fetchall()]


def _recorded(context: dg.AssetExecutionContext) -> set[tuple[dg.AssetKey, str]]:
    """What an earlier run of this step recorded. A retry continues after it and records nothing twice."""
    if context.retry_number == 0:
        return set()
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    records = context.instance.get_records_for_run(context.run.run_id, of_type=kind)
    found: set[tuple[dg.AssetKey, str]] = set()
    for record in records.records:
        materialization = record.event_log_entry.asset_materialization
        if materialization and materialization.partition:
            found.add((materialization.asset_key, materialization.partition))
    return found


@contextmanager
def retried_where_it_helps(where: str) -> Generator[None]:
    """Pass transient errors to the retry policy; any other error ends the run with its reason."""
    try:
        yield
    except dg.Failure:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        # Dagster stores the cause with all data that it quotes.
        cause = None if is_bad_data(error) else error
        raise dg.Failure(f"{where}: {without_values(error)}", allow_retries=False) from cause
