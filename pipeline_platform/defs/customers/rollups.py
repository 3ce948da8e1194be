"""rollups: the counts that dashboards read, checked against exports and the account; a partition is an hour.

The hours are those of `received_at`. The workers' keeper keeps the table fresh; this asset counts what is still marked,
compares the hour and records the result. The check names tenant and hour of a difference and repairs nothing: look into
it, then materialize the hour with `recompute`.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from pipeline_platform.analytics.agreement import Agreement, Difference, agree
from pipeline_platform.analytics.rollups import mark
from pipeline_platform.db import queries
from pipeline_platform.defs import automation, columns
from pipeline_platform.defs.events.processing import DELIVERED
from pipeline_platform.defs.hours import HOURS, hour_of
from pipeline_platform.defs.policies import HOURS_POOL, HOURS_RUNS, OWNED, OWNERS, RETRY, requests_over
from pipeline_platform.defs.recording import Event, hour_record, over_hours
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.verdicts import hour_verdict, last_verdict, red_hours

_SQL = queries("rollups")
_RANGES_MAX = 4
_DIFFERENCES_SHOWN = 20

ROLLUPS = dg.AssetKey("rollups")

SAME_TOTALS = dg.AssetCheckSpec(
    "same_totals",
    asset=ROLLUPS,
    description="Roll-ups, an export and the account say the same for every tenant and hour: each cell of the hour is "
    "what an export holds, their sum what the account delivered into production, and no identity is there twice or was "
    "never accepted.",
)


class RollupsConfig(dg.Config):
    """What to do with the hours before they are compared."""

    recompute: bool = Field(
        default=False,
        description="Count every cell of the hours anew, not only those that are marked: after a failed check, once "
        "it is known why.",
    )


@dg.multi_asset(
    name="roll_up_hours",
    description="Counts what is still marked, and compares each hour with an export and the account.",
    specs=[
        dg.AssetSpec(
            ROLLUPS,
            deps=[DELIVERED],
            group_name="customers",
            owners=OWNERS,
            code_version="1",
            kinds={"postgres", "table"},
            metadata=columns.ROLLUPS,
            partitions_def=HOURS,
            description="analytics.rollups: events by tenant, hour of occurred_at, type and name. A partition is what "
            "was received in the hour: its events, how many of them had occurred in an earlier hour, cells, tenants.",
            # Its schedule runs once an hour, and takes every hour that has ended.
            freshness_policy=dg.FreshnessPolicy.time_window(
                warn_window=timedelta(hours=3), fail_window=timedelta(hours=6)
            ),
        )
    ],
    check_specs=[SAME_TOTALS],
    partitions_def=HOURS,
    backfill_policy=HOURS_RUNS,
    retry_policy=RETRY,
    pool=HOURS_POOL,
)
def roll_up_hours(context: dg.AssetExecutionContext, platform: Platform, config: RollupsConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return over_hours(context, _roll_up(context, platform, config))


def _roll_up(context: dg.AssetExecutionContext, platform: Platform, config: RollupsConfig) -> Iterator[Event]:
    verdicts: list[dg.AssetCheckEvaluation] = []
    with platform.connect() as conn:
        if config.recompute:
            mark(conn, [hour_of(key) for key in context.partition_keys])
        for key in context.partition_keys:
            found = agree(conn, hour_of(key))
            yield hour_record(ROLLUPS, key, _described(found))
            verdicts.append(_verdict(found, key))
            yield verdicts[-1]
    yield last_verdict(SAME_TOTALS, red_hours(context.instance, SAME_TOTALS, verdicts), len(verdicts))


def _described(found: Agreement) -> dict[str, Any]:
    waiting = f" {len(found.waiting):,} tenants could not be judged yet." if found.waiting else ""
    return {
        "result": f"{found.events:,} events of {found.tenants:,} tenants received in this hour, {found.late:,} of them "
        f"late, in {found.cells:,} cells.{waiting}",
        "events": found.events,
        "late_events": found.late,
        "cells": found.cells,
        "tenants": found.tenants,
        "waiting_tenants": len(found.waiting),
    }


def _verdict(found: Agreement, key: str) -> dg.AssetCheckEvaluation:
    if found.holds:
        said = f"roll-ups, export and account agree on {found.events:,} events"
    else:
        said = f"{len(found.differences)} differences; first: {found.differences[0].text()}"
    return hour_verdict(
        SAME_TOTALS,
        key,
        passed=found.holds,
        said=said,
        metadata={
            "events": found.events,
            "differences": len(found.differences),
            "not_judged": dg.MetadataValue.json(list(found.waiting)),
            **({"first_differences": _table(found.differences)} if found.differences else {}),
        },
    )


def _table(differences: Sequence[Difference]) -> dg.TableMetadataValue:
    columns = ("kind", "tenant", "hour", "exported", "rolled_up", "delivered")
    rows = [
        dg.TableRecord({name: getattr(each, name) for name in columns} | {"hour": each.hour.isoformat()})
        for each in differences[:_DIFFERENCES_SHOWN]
    ]
    return dg.MetadataValue.table(rows, dg.TableSchema([dg.TableColumn(name) for name in columns]))


rollups_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "rollups_job",
    selection=dg.AssetSelection.assets(ROLLUPS),
    description="Refreshes and proves the roll-ups of an hour, or of a range of hours in one run. The schedule does it "
    "hourly; with `recompute: true` it counts every cell anew.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)


@dg.schedule(  # pyright: ignore[reportUnknownMemberType, reportArgumentType]
    job=rollups_job,
    # By then the sensor sealed_hours has had the last hour finished.
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    default_status=automation.SCHEDULES,
    metadata=OWNED,
    description="Refreshes and proves the roll-ups of hours that ended or changed since they were compared (late "
    "imports, replays, recovery, erasure), and of every kept hour once a day.",
)
def hourly_rollups(context: dg.ScheduleEvaluationContext, platform: Platform):
    with platform.connect() as conn:
        first = hour_of(HOURS.get_first_partition_key() or "")
        due = [hour for (hour,) in conn.execute(_SQL["unchecked_hours"], {"first": first}).fetchall()]
    if not due:
        return dg.SkipReason("no hour ended or changed since it was compared")
    # The next hourly run takes the rest. Scattered hours that a replay changed would need one run each.
    return requests_over(context, due, most=_RANGES_MAX)
