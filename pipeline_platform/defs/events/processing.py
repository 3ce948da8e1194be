"""accepted_events → enriched_events → delivered_events: an hour of `received_at` is a partition of each.

Live workers deliver events within milliseconds; these assets finish an hour and prove it. One step takes a range hour
by hour through all three stages and records each stage before the next. So the results of a failed or killed run are
kept. An operator runs the same range again: finished hours take a moment, and no event is delivered twice.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.db import queries
from pipeline_platform.defs import columns
from pipeline_platform.defs.events.account_check import ACCOUNT_HOLDS, check_hour, conclude
from pipeline_platform.defs.events.stages import Metadata, accept_stage, deliver_stage, enrich_stage
from pipeline_platform.defs.hours import HOURS, hour_of, key_of
from pipeline_platform.defs.outside import CLIENTS
from pipeline_platform.defs.policies import (
    HOURS_POOL,
    HOURS_RUNS,
    OWNED,
    OWNERS,
    PERSONAL_DATA,
    RETRY,
    retried_where_it_helps,
)
from pipeline_platform.defs.recording import Event, hour_record, over_hours, recorded
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.verdicts import red_hours
from pipeline_platform.settings import Settings

_SQL = queries("control_plane")

ACCEPTED, ENRICHED, DELIVERED = (
    dg.AssetKey(name) for name in ("accepted_events", "enriched_events", "delivered_events")
)

Conn = psycopg.Connection[Any]

_STAGES: dict[dg.AssetKey, Callable[..., Metadata]] = {
    ACCEPTED: accept_stage,
    ENRICHED: enrich_stage,
    DELIVERED: deliver_stage,
}

# What is recorded of an hour in which nothing was received. Thousands of them are launched at once.
NOTHING_RECEIVED: dict[dg.AssetKey, Metadata] = {
    ACCEPTED: {"result": "Nothing was received in this hour.", "received": 0, "accepted": 0, "rejected": 0},
    ENRICHED: {"result": "Nothing was received in this hour, so nothing was open.", "in_flight": 0},
    DELIVERED: {"result": "Nothing was received in this hour, so nothing was delivered.", "delivered": 0},
}

_common: dict[str, Any] = {
    "group_name": "events",
    "owners": OWNERS,
    "code_version": "1",
    "partitions_def": HOURS,
    "tags": PERSONAL_DATA,
}

_SPECS = [
    dg.AssetSpec(
        ACCEPTED,
        deps=[CLIENTS],
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
        metadata=columns.EVENTS,
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
    backfill_policy=HOURS_RUNS,
    retry_policy=RETRY,
    pool=HOURS_POOL,
)
def process_hours(context: dg.AssetExecutionContext, platform: Platform):
    # Without a return type: Dagster would read one as the types of the outputs.
    return over_hours(context, _process(context, platform))


process_hours_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "process_hours_job",
    selection=dg.AssetSelection.assets(ACCEPTED, ENRICHED, DELIVERED),
    description="Seals, drains and proves hours: one, or a range in one run. The sensor sealed_hours "
    "starts it. For one urgent hour launch it by hand: a backfill waits up to 30 s for its "
    "daemon.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)


def _process(context: dg.AssetExecutionContext, platform: Platform) -> Iterator[Event]:
    settings = platform.settings()
    done = recorded(context)
    verdicts: list[dg.AssetCheckEvaluation] = []
    with retried_where_it_helps("connecting"), platform.connect() as conn:
        keys = _hours(context, conn)
        quiet = _quiet(conn, keys)
        for is_quiet, some in groupby(keys, quiet.__contains__):
            if is_quiet:
                yield from _record_quiet(context, conn, list(some), done, verdicts)
                continue
            for key in some:
                with retried_where_it_helps(f"hour {key}"):
                    yield from _one_hour(context, conn, settings, key, done)
                    if ACCOUNT_HOLDS.key in context.selected_asset_check_keys:
                        verdicts.append(check_hour(conn, hour_of(key)))
                        yield verdicts[-1]
    if ACCOUNT_HOLDS.key in context.selected_asset_check_keys:
        yield from conclude(context.instance, verdicts, len(keys))


def _one_hour(
    context: dg.AssetExecutionContext, conn: Conn, settings: Settings, key: str, done: set[tuple[dg.AssetKey, str]]
) -> Iterator[dg.AssetMaterialization]:
    for asset_key, stage in _STAGES.items():
        if asset_key in context.selected_asset_keys and (asset_key, key) not in done:
            yield hour_record(asset_key, key, stage(conn, settings, hour_of(key)))


def _record_quiet(
    context: dg.AssetExecutionContext, conn: Conn, keys: list[str], done: set[tuple[dg.AssetKey, str]],
    verdicts: list[dg.AssetCheckEvaluation],
) -> Iterator[Event]:  # fmt: skip
    """Neighbouring hours in which nothing was received: a line each, and a verdict only where it is or was red.

    Every hour of a run has to be recorded, or Dagster calls it failed. These are recorded together.
    """
    for asset_key, result in NOTHING_RECEIVED.items():
        if asset_key in context.selected_asset_keys:
            yield [hour_record(asset_key, key, result) for key in keys if (asset_key, key) not in done]
    if ACCOUNT_HOLDS.key in context.selected_asset_check_keys:
        red = set(red_hours(context.instance, ACCOUNT_HOLDS, ()))
        for key in keys:
            verdict = check_hour(conn, hour_of(key))
            if not verdict.passed or key in red:
                verdicts.append(verdict)
                yield verdict


def _hours(context: dg.AssetExecutionContext, conn: Conn) -> Sequence[str]:
    """The run's partitions. The check alone may run without any: it then covers every sealed hour that is kept."""
    if context.has_partition_key or context.has_partition_key_range:
        return context.partition_keys
    return [key_of(hour) for hour, _ in conn.execute(_SQL["sealed_hours"]).fetchall()]


def _quiet(conn: Conn, keys: Sequence[str]) -> set[str]:
    """Those of the hours that are over, sealed or never opened, and have no account."""
    hours = {"hours": [hour_of(key) for key in keys]}
    return {key_of(hour) for (hour,) in conn.execute(_SQL["quiet_hours"], hours).fetchall()}
