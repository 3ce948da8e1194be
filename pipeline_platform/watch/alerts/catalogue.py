"""Every kind of alert: its severity, its title and the operator's next command. The only list of kinds.

Each has a page docs/runbooks/KIND.md. `next_command` may name {tenant}, {fingerprint} and {sample} of its alert.
"""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """critical: act at once, even at night. warning: act within the day."""

    CRITICAL = "critical"
    WARNING = "warning"


class Kind(StrEnum):
    """The values of control.alerts.kind."""

    DEAD_LETTER_EXHAUSTED = "dead_letter_exhausted"
    ACCOUNT_UNBALANCED = "account_unbalanced"
    DELIVERY_RATE_LOW = "delivery_rate_low"
    LAG_HIGH = "lag_high"
    LATENCY_HIGH = "latency_high"
    QUEUE_STOPPED = "queue_stopped"
    CIRCUIT_OPEN = "circuit_open"
    DRIFT_FOUND = "drift_found"
    CUTOVER_ANOMALY = "cutover_anomaly"
    TRANSACTION_OLD = "transaction_old"
    DISK_LOW = "disk_low"
    PARTITIONS_LOW = "partitions_low"
    ARCHIVE_FAILED = "archive_failed"
    REPLAY_PAUSED = "replay_paused"
    DAGSTER_RUN_FAILED = "dagster_run_failed"
    DAGSTER_STUCK = "dagster_stuck"
    SENSOR_FAILED = "sensor_failed"
    SENSOR_SILENT = "sensor_silent"
    CHANNEL_DOWN = "channel_down"
    DATABASE_AWAY = "database_away"
    CLOCK_STEPPED = "clock_stepped"
    CHORE_LATE = "chore_late"
    HOURS_OVERDUE = "hours_overdue"
    WORKERS_CRASHING = "workers_crashing"
    REPLAY_HOLDS_HOURS = "replay_holds_hours"
    REJECTED_HIGH = "rejected_high"
    MIRROR_LAG_HIGH = "mirror_lag_high"


@dataclass(frozen=True, slots=True)
class AlertKind:
    """The properties of a kind, common to all its alerts."""

    kind: str
    severity: Severity
    title: str
    next_command: str

    @property
    def page(self) -> str:
        """Its runbook, within docs/runbooks/."""
        return f"{self.kind}.md" if self.kind in CATALOGUE else "README.md"


def _all() -> tuple[AlertKind, ...]:
    critical, warning = Severity.CRITICAL, Severity.WARNING
    return (
        AlertKind(
            Kind.DEAD_LETTER_EXHAUSTED, warning, "Dead letters exhausted",
            "pipeline-platform dead-letters list --fingerprint {fingerprint}",
        ),
        AlertKind(Kind.ACCOUNT_UNBALANCED, critical, "The account does not balance", "pipeline-platform audit"),
        AlertKind(
            Kind.DELIVERY_RATE_LOW, critical, "Too few events are delivered",
            "pipeline-platform funnel --tenant {tenant}",
        ),
        AlertKind(Kind.LAG_HIGH, warning, "Events wait too long", "pipeline-platform status"),
        AlertKind(Kind.LATENCY_HIGH, warning, "Delivery is slow", "pipeline-platform objectives"),
        AlertKind(Kind.QUEUE_STOPPED, critical, "The queue has stopped", "pipeline-platform doctor"),
        AlertKind(Kind.CIRCUIT_OPEN, critical, "The circuit is open", "pipeline-platform circuit status"),
        AlertKind(
            Kind.DRIFT_FOUND, warning, "Both pipelines differ",
            "pipeline-platform reconcile",
        ),
        AlertKind(Kind.CUTOVER_ANOMALY, critical, "Anomaly after the cutover", "pipeline-platform cutover status"),
        AlertKind(Kind.TRANSACTION_OLD, warning, "A transaction is old", "pipeline-platform doctor"),
        AlertKind(Kind.DISK_LOW, critical, "The disk runs out", "pipeline-platform doctor"),
        AlertKind(Kind.PARTITIONS_LOW, critical, "Partitions run out", "pipeline-platform doctor"),
        AlertKind(Kind.ARCHIVE_FAILED, warning, "An hour was not archived", "pipeline-platform archive run"),
        AlertKind(
            Kind.REPLAY_PAUSED, warning, "A replay is paused", "pipeline-platform replay show {fingerprint}",
        ),
        AlertKind(Kind.DAGSTER_RUN_FAILED, warning, "A run of Dagster failed", "pipeline-platform status"),
        AlertKind(Kind.DAGSTER_STUCK, warning, "Runs of Dagster are stuck", "pipeline-platform status"),
        AlertKind(Kind.SENSOR_FAILED, warning, "A sensor or schedule failed", "pipeline-platform status"),
        AlertKind(Kind.SENSOR_SILENT, warning, "A sensor does not tick", "pipeline-platform status"),
        AlertKind(Kind.CHANNEL_DOWN, warning, "A channel of alerts is down", "pipeline-platform alerts test"),
        AlertKind(Kind.DATABASE_AWAY, critical, "PostgreSQL does not answer", "pipeline-platform status"),
        AlertKind(Kind.CLOCK_STEPPED, critical, "The database's clock was stepped", "pipeline-platform status"),
        AlertKind(Kind.CHORE_LATE, warning, "A chore of the queue is late", "pipeline-platform doctor"),
        AlertKind(Kind.HOURS_OVERDUE, warning, "Hours are overdue", "pipeline-platform doctor"),
        AlertKind(Kind.WORKERS_CRASHING, critical, "Workers crash again and again", "pipeline-platform doctor"),
        AlertKind(
            Kind.REPLAY_HOLDS_HOURS, warning, "A replay holds hours past their retention",
            "pipeline-platform replay show {fingerprint}",
        ),
        AlertKind(
            Kind.REJECTED_HIGH, warning, "Many events are rejected",
            "pipeline-platform quarantine list --tenant {tenant}",
        ),
        AlertKind(Kind.MIRROR_LAG_HIGH, warning, "The mirror is late", "pipeline-platform mirror show"),
    )  # fmt: skip


CATALOGUE: dict[str, AlertKind] = {str(each.kind): each for each in _all()}


def about(kind: str) -> AlertKind:
    """The properties of a kind. A kind that only another version knows is still delivered, under its name."""
    return CATALOGUE.get(kind) or AlertKind(kind, Severity.WARNING, kind, "pipeline-platform alerts list")
