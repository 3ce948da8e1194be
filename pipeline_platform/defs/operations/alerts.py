"""Alerts in Dagster: looks for alerts as the alerts' own process does, and reports on its sensors and schedules.

Dagster does not report that a sensor fails. So one sensor records when each sensor and schedule ticked last and whether
that tick failed. The alerts' process, which runs outside Dagster, notices a failure, a missing tick, and missing
reports of that sensor.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from pipeline_platform.db import queries
from pipeline_platform.defs import automation
from pipeline_platform.defs.policies import OWNED
from pipeline_platform.defs.resources import Platform
from pipeline_platform.private_dagster import (
    InstigatorState,
    InstigatorTick,
    InstigatorType,
    SensorInstigatorData,
    TickStatus,
)
from pipeline_platform.watch.alerts.conditions import REPORTER, look_at
from pipeline_platform.watch.alerts.operations import list_alerts

_SQL = queries("alerts")
_ERROR_MAX = 200


@dg.sensor(  # pyright: ignore[reportUnknownMemberType]
    minimum_interval_seconds=30,
    default_status=automation.SENSORS,
    metadata=OWNED,
    description="Looks for everything that is an alert, and says what is open and what was opened since its last tick. "
    "The alerts' own process does the same without Dagster, and delivers: `pipeline-platform alerts list`.",
)
def open_alerts(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
    settings = platform.settings()
    with platform.connect() as conn:
        look_at(conn, settings)
        found = list_alerts(conn, settings, limit=1_000)
    newest = max((each["alert_id"] for each in found), default=0)
    told = int(context.cursor or 0)
    fresh = [each for each in found if each["alert_id"] > told]
    titles = "; ".join(f"{each['title']}, {each['tenant'] or 'the platform'}: {each['message']}" for each in fresh[:10])
    said = f"{len(found)} alerts are open" + (f", {len(fresh)} of them new: {titles}" if fresh else "")
    return dg.SensorResult(skip_reason=said, cursor=str(max(told, newest)))


@dg.sensor(  # pyright: ignore[reportUnknownMemberType]
    name=REPORTER,
    minimum_interval_seconds=30,
    default_status=automation.SENSORS,
    metadata=OWNED,
    description="Records when each sensor and schedule that is on ticked last, and whether that failed. The "
    "alerts' own process watches these reports, and their absence.",
)
def sensor_reports(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    storage = context.instance.schedule_storage
    assert storage
    states = [
        state for state in context.instance.all_instigator_state() if state.is_running and _is_ours(context, state)
    ]
    # Two, because the newest tick may be under way.
    ticks = storage.get_batch_ticks([state.selector_id for state in states], limit=2)
    rows = [_row(state, ticks.get(state.selector_id, ())) for state in states]
    # This tick is not over yet, so the storage still has the previous one of this sensor.
    rows = [row for row in rows if row[0] != REPORTER] + [(REPORTER, None, datetime.now(UTC), None)]
    names, intervals, ticked, errors = zip(*rows, strict=True)
    values = {"name": names, "interval_s": intervals, "ticked_at": ticked, "error": errors}
    with platform.connect() as conn:
        conn.execute(_SQL["report_ticks"], {column: list(value) for column, value in values.items()})
    failing = [row[0] for row in rows if row[3]]
    return dg.SkipReason(f"{len(rows)} sensors and schedules are on; failing: {', '.join(failing) or 'none'}")


def _is_ours(context: dg.SensorEvaluationContext, state: InstigatorState) -> bool:
    """Whether it belongs to this code location and still exists in the code: Dagster remembers removed ones."""
    location, repository = context.code_location_origin, context.repository_def
    theirs = state.origin.repository_origin.code_location_origin.location_name
    if location and location.location_name != theirs:
        return False
    return not repository or repository.has_sensor_def(state.name) or repository.has_schedule_def(state.name)


def _row(state: InstigatorState, ticks: Sequence[InstigatorTick]) -> tuple[Any, ...]:
    """A row: name, interval_s (None: a schedule), ticked_at, error. ticks: the newest first."""
    last = next((tick for tick in ticks if tick.status is not TickStatus.STARTED), None)
    data = state.instigator_data
    interval = data.min_interval if isinstance(data, SensorInstigatorData) else None
    started = data.last_sensor_start_timestamp if isinstance(data, SensorInstigatorData) else None
    at = last.timestamp if last else started
    error = None
    if last and last.status is TickStatus.FAILURE:
        cause = last.error and (last.error.cause or last.error)
        error = (cause.message.strip() if cause else "no error was noted")[:_ERROR_MAX]
    is_sensor = state.instigator_type is InstigatorType.SENSOR
    return state.name, interval if is_sensor else None, datetime.fromtimestamp(at, UTC) if at else None, error
