"""The real cause of each kind of alert, with the settings under which it is one.

A cause is a generator: it makes the cause, yields while it lasts, and ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline_platform.watch.alerts.catalogue import Kind
from pipeline_platform_tests.support.causes import dagster, events, hours, migration, servers
from pipeline_platform_tests.support.causes.world import Ended, World


@dataclass(frozen=True, slots=True)
class Cause:
    """How to provoke a kind, with which settings."""

    provoke: Callable[[World], Ended]
    settings: dict[str, Any]


CAUSES = {
    Kind.DEAD_LETTER_EXHAUSTED: Cause(events.exhausted, {"attempts_max": 1}),
    Kind.ACCOUNT_UNBALANCED: Cause(events.unbalanced, {}),
    Kind.DELIVERY_RATE_LOW: Cause(events.rate_low, {"objective_events_min": 10}),
    Kind.LAG_HIGH: Cause(events.waiting, {"objective_lag_s": 0.5}),
    Kind.QUEUE_STOPPED: Cause(events.waiting, {"alert_queue_stopped_s": 0.5}),
    Kind.LATENCY_HIGH: Cause(
        events.slow,
        {"objective_latency_p95_ms": 0.01, "objective_latency_window_s": 2.0, "objective_latency_windows": 2},
    ),
    Kind.CIRCUIT_OPEN: Cause(events.circuit, {}),
    Kind.DRIFT_FOUND: Cause(migration.drift, {}),
    Kind.CUTOVER_ANOMALY: Cause(migration.anomaly, {}),
    Kind.TRANSACTION_OLD: Cause(servers.old_transaction, {"alert_transaction_age_s": 0.5}),
    Kind.DISK_LOW: Cause(servers.full_disk, {"alert_disk_free_bytes_min": 1 << 62}),
    Kind.PARTITIONS_LOW: Cause(hours.no_partitions, {}),
    Kind.ARCHIVE_FAILED: Cause(hours.unarchived, {}),
    Kind.REPLAY_PAUSED: Cause(hours.paused, {}),
    Kind.DAGSTER_RUN_FAILED: Cause(dagster.failed_run, {}),
    Kind.DAGSTER_STUCK: Cause(dagster.stuck_run, {}),
    Kind.SENSOR_FAILED: Cause(dagster.failed_sensor, {}),
    Kind.SENSOR_SILENT: Cause(dagster.silent_sensor, {"alert_sensor_silent_s": 0.5}),
    Kind.CHANNEL_DOWN: Cause(servers.dead_channel, {"alert_channel_down_s": 3.0, "alert_transaction_age_s": 0.2}),
    Kind.DATABASE_AWAY: Cause(servers.away, {"alert_database_away_s": 0.5}),
    Kind.CLOCK_STEPPED: Cause(hours.stepped_clock, {}),
    Kind.CHORE_LATE: Cause(servers.late_chore, {}),
    Kind.HOURS_OVERDUE: Cause(hours.unsealed, {}),
    Kind.WORKERS_CRASHING: Cause(events.crashing, {}),
    Kind.REJECTED_HIGH: Cause(events.rejected, {"objective_events_min": 10}),
    Kind.MIRROR_LAG_HIGH: Cause(migration.late_mirror, {"alert_mirror_lag_s": 0.5}),
    Kind.REPLAY_HOLDS_HOURS: Cause(hours.held_hours, {}),
}
