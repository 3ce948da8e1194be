"""Checks the conditions that the rest of the platform does not report, opens alerts, and resolves those that are over.

Several processes may check at once: one cause has one open alert. A cause that comes and goes is also one alert: it is
over when it was not found for `alert_quiet_s`. A check that fails raises; the next one comes soon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.disk import room_under
from pipeline_platform.migration.cutover.watch import watch
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Kind
from pipeline_platform.watch.alerts.latency import slow_for_long

_SQL = queries("alerts")
Conn = psycopg.Connection[Any]

# This sensor reports for all sensors. Missing reports show that it is silent.
REPORTER = "sensor_reports"
# Conditions that read many rows are checked every sixth time.
_OFTEN, _SELDOM = 1, 6


@dataclass(frozen=True, slots=True)
class Found:
    """One cause that exists now."""

    kind: str
    tenant_id: int | None
    fingerprint: str
    message: str
    occurrences: int
    since: datetime | None
    sample_id: str | None


@dataclass(frozen=True, slots=True)
class Condition:
    """The kinds that a condition checks, and how."""

    kinds: tuple[Kind, ...]
    look: Callable[[Conn, Settings], Sequence[Found]]
    every: int = _OFTEN


def _query(name: str, conn: Conn, settings: Settings) -> list[Found]:
    return [Found(*row) for row in conn.execute(_SQL[name], parameters(settings)).fetchall()]


def parameters(settings: Settings) -> dict[str, Any]:
    """The limits for the conditions' queries."""
    return {
        "lag_s": settings.objective_lag_s,
        "rate_window_s": settings.objective_window_h * 3600,
        "ratio": str(settings.objective_delivered_ratio),
        "events_min": settings.objective_events_min,
        "latency_window_s": settings.objective_latency_window_s,
        "stopped_s": settings.alert_queue_stopped_s,
        "transaction_age_s": settings.alert_transaction_age_s,
        "hours_ahead_min": settings.alert_hours_ahead_min,
        "reporter": REPORTER,
        "silent_s": settings.alert_sensor_silent_s,
        "channel_down_s": settings.alert_channel_down_s,
        "retention": settings.retention,
        "archived_only": bool(settings.archive_url),
        "rejected_ratio": str(settings.alert_rejected_ratio),
        "mirror_lag_s": settings.alert_mirror_lag_s,
    }


def _disk(_conn: Conn, settings: Settings) -> list[Found]:
    gib = 1 << 30
    try:
        free = room_under(settings.home).free
        message = f"{free / gib:.1f} GiB are left; below {settings.disk_free_bytes_min / gib:.1f} nothing is accepted"
    except OSError as error:
        free, message = -1, f"the disk of the home cannot be looked at: {error.strerror}"
    if free >= settings.alert_disk_free_bytes_min:
        return []
    return [Found(Kind.DISK_LOW.value, None, "home", message, 1, None, None)]


def _latency(conn: Conn, settings: Settings) -> list[Found]:
    return [
        Found(
            Kind.LATENCY_HIGH.value, windows[0].tenant_id, "p95",
            f"p95 {windows[0].p95_ms:.1f} ms from acceptance to delivery (worst {max(w.worst_ms for w in windows):.1f} "
            f"ms): over the objective of {settings.objective_latency_p95_ms:g} ms in each of the last {len(windows)} "
            f"windows of {settings.objective_latency_window_s:g} s with events",
            sum(window.events for window in windows), windows[-1].since, windows[0].sample_id,
        )
        for windows in slow_for_long(conn, settings)
    ]  # fmt: skip


CONDITIONS = (
    Condition((Kind.DEAD_LETTER_EXHAUSTED,), partial(_query, "dead_letters")),
    Condition((Kind.QUEUE_STOPPED, Kind.LAG_HIGH), partial(_query, "queue")),
    Condition((Kind.TRANSACTION_OLD,), partial(_query, "transactions")),
    Condition((Kind.PARTITIONS_LOW,), partial(_query, "partitions")),
    Condition((Kind.DISK_LOW,), _disk),
    Condition((Kind.SENSOR_SILENT, Kind.SENSOR_FAILED), partial(_query, "sensors")),
    Condition((Kind.CHANNEL_DOWN,), partial(_query, "channels")),
    Condition((Kind.CLOCK_STEPPED,), partial(_query, "clock_steps")),
    Condition((Kind.CHORE_LATE,), partial(_query, "chores")),
    Condition((Kind.WORKERS_CRASHING,), partial(_query, "worker_deaths")),
    Condition((Kind.HOURS_OVERDUE,), partial(_query, "overdue_hours"), _SELDOM),
    Condition((Kind.ACCOUNT_UNBALANCED,), partial(_query, "account"), _SELDOM),
    Condition((Kind.DELIVERY_RATE_LOW,), partial(_query, "delivery_rate"), _SELDOM),
    Condition((Kind.LATENCY_HIGH,), _latency, _SELDOM),
    Condition((Kind.DRIFT_FOUND,), partial(_query, "drift"), _SELDOM),
    Condition((Kind.REPLAY_HOLDS_HOURS,), partial(_query, "replay_holds_hours"), _SELDOM),
    Condition((Kind.REJECTED_HIGH,), partial(_query, "rejected"), _SELDOM),
    Condition((Kind.MIRROR_LAG_HIGH,), partial(_query, "mirror_lag"), _SELDOM),
)


class Looker:
    """Checks repeatedly: cheap conditions each time, the others less often."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looks = 0

    def look(self, conn: Conn) -> None:
        """Check the conditions that are due. conn: in autocommit mode."""
        due = [condition for condition in CONDITIONS if self._looks % condition.every == 0]
        look_at(conn, self._settings, due)
        if self._looks % _SELDOM == 0:
            watch(conn, self._settings)
        self._looks += 1


def look_at(conn: Conn, settings: Settings, conditions: Sequence[Condition] = CONDITIONS) -> list[Found]:
    """Check some conditions, open and resolve their alerts; returns the causes found."""
    (looked_at,) = conn.execute(_SQL["clock"]).fetchone() or (None,)
    found = [each for condition in conditions for each in condition.look(conn, settings)]
    columns = {name: [getattr(each, name) for each in found] for name in Found.__dataclass_fields__}
    judged = [kind.value for condition in conditions for kind in condition.kinds]
    conn.execute(_SQL["apply"], columns | {"judged": judged, "quiet_s": settings.alert_quiet_s, "looked_at": looked_at})
    return found
