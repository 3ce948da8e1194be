"""Every metric by name: metric names are defined only here. docs/reference/metrics.md is generated from it.

Base units (seconds, bytes, events), the suffix `_total` for counters, the prefix `pipeline_`. Labels are tenants,
stages or small fixed sets of words, never values that grow with the events, like an id or a message.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The metric's type in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """The process that serves it: the console from PostgreSQL, or a gateway for the processes of its home."""

    DATABASE = "database"
    PROCESSES = "processes"


@dataclass(frozen=True, slots=True)
class Metric:
    """name: as served, without the suffixes `_bucket`, `_sum`, `_count` of a histogram. bounds: of a histogram."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    source: Source = Source.DATABASE
    bounds: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries may use."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


# The columns of account.running_totals, in the order of the route.
STAGES = (
    "received", "accepted", "rejected", "claimed", "enriched", "delivered", "duplicate", "dead_lettered", "discarded",
)  # fmt: skip

# account.latency_bounds() of the migrations; 0.012 and 0.25 are objectives.
LATENCY_BOUNDS_S = (
    0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.016, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 3600.0,
)  # fmt: skip

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

UP = Metric("pipeline_up", _G, "1 where PostgreSQL answered this scrape; 0: nothing else of the account is here.")
BUILD_INFO = Metric(
    "pipeline_build_info", _G, "Always 1: the version, and the newest migration.", ("version", "schema")
)
SCRAPE_SECONDS = Metric("pipeline_scrape_seconds", _G, "What reading all of this from PostgreSQL took.")
EVENTS = Metric(
    "pipeline_events_total",
    _C,
    "Events that reached a stage or an outcome, ever. Nothing is taken back: what is erased, or delivered after it was "
    "a dead letter, stays counted where it was.",
    ("tenant", "stage"),
)
IN_FLIGHT = Metric("pipeline_in_flight_events", _G, "Accepted events without an outcome yet.", ("tenant",))
LATENCY = Metric(
    "pipeline_delivery_latency_seconds",
    _H,
    "From received_at to the delivery, of each event delivered at its first attempt; imported events are left out. By "
    "the lane of acceptance.",
    ("lane",),
    bounds=LATENCY_BOUNDS_S,
)
QUEUE_EVENTS = Metric("pipeline_queue_events", _G, "Events that wait in the queue or are being processed.", ("lane",))
QUEUE_PIECES = Metric("pipeline_queue_work", _G, "Pieces of work that wait or are being processed.", ("lane",))
QUEUE_AGE = Metric(
    "pipeline_queue_oldest_age_seconds",
    _G,
    "Age of the oldest event that waits, by received_at; 0: none waits.",
    ("lane",),
)
SUSPECTS = Metric("pipeline_queue_suspects", _G, "Pieces of work that a worker died of.")
DEAD_LETTERS = Metric(
    "pipeline_dead_letters",
    _G,
    "Dead letters now: waiting for their next attempt, or exhausted and waiting for a person.",
    ("tenant", "state"),
)
UNBALANCED = Metric(
    "pipeline_account_unbalanced", _G, "Tenants, hours and lanes of the kept hours whose account does not balance: 0."
)
PARTITIONS = Metric(
    "pipeline_partitions",
    _G,
    "Hourly partitions of the queue: ahead of now, retained, sealed of the retained, unsealed though they are over.",
    ("state",),
)
DISK_FREE = Metric("pipeline_disk_free_bytes", _G, "Free space under PIPELINE_HOME.")
DATABASE_BYTES = Metric("pipeline_database_bytes", _G, "Size of the database.")
OLDEST_TRANSACTION = Metric(
    "pipeline_oldest_transaction_age_seconds", _G, "Age of the oldest open transaction in the database."
)
ALERTS_OPEN = Metric("pipeline_alerts_open", _G, "Open alerts, by kind.", ("kind",))
CIRCUIT_OPEN = Metric("pipeline_circuit_open", _G, "1 while the circuit is open: nothing is processed.")
CUTOVER_PHASE = Metric("pipeline_cutover_phase", _G, "1 for the phase in force, 0 for the others.", ("phase",))
CUTOVER_EPOCH = Metric("pipeline_cutover_epoch", _G, "Number of the epoch in force: it grows at each turn.")
DRIFT = Metric(
    "pipeline_drift_events",
    _G,
    "Identities that differ between both pipelines' outputs, in settled windows of the kept hours.",
    ("kind",),
)
MIRROR_EVENTS = Metric("pipeline_mirror_waiting_events", _G, "Events that the mirror has still to forward.")
MIRROR_AGE = Metric("pipeline_mirror_oldest_age_seconds", _G, "Age of the oldest batch that the mirror has to forward.")
LEGACY_PIPELINE = Metric(
    "pipeline_legacy_events_total",
    _C,
    "Events at the old pipeline's stages, as these reported them: arrived, proceeded, failed.",
    ("stage", "result"),
)
REPLAYS = Metric("pipeline_replays", _G, "Replays that are not finished, by state.", ("state",))
REPLAY_PLANNED = Metric(
    "pipeline_replay_planned_events", _G, "Events of the replays that are diffing, committing or undoing."
)
REPLAY_DONE = Metric("pipeline_replay_done_events", _G, "How many of them this step has done.")

_P = Source.PROCESSES
REQUESTS = Metric("pipeline_gateway_requests_total", _C, "Requests to the tracking API, by status.", ("code",), _P)
COMMIT_EVENTS = Metric(
    "pipeline_gateway_commit_events",
    _H,
    "Events that one group commit made durable, rejected ones too.",
    (),
    _P,
    (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
COMMIT_SECONDS = Metric(
    "pipeline_gateway_commit_seconds",
    _H,
    "One group commit that succeeded, its encoding included.",
    (),
    _P,
    (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
WORKER_BATCHES = Metric(
    "pipeline_worker_batches_total", _C, "Pieces of work that were completed, by lane.", ("lane",), _P
)
WORKER_EVENTS = Metric("pipeline_worker_events_total", _C, "Events of completed work, by outcome.", ("outcome",), _P)
WORKER_STEP_SECONDS = Metric(
    "pipeline_worker_step_seconds",
    _H,
    "One step of a worker that found work: from the claim to its commit.",
    (),
    _P,
    (0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0),
)
UNUSABLE_TIMES = Metric(
    "pipeline_worker_unusable_times_total",
    _C,
    "Processed events whose own time nobody can read: their occurred_at is received_at, what they said is in rest.",
    (),
    _P,
)
TRAITS_LEFT_OUT = Metric(
    "pipeline_worker_traits_left_out_total",
    _C,
    "Traits that were read from PostgreSQL and not copied into rows, because a user or group has too many or too large "
    "ones.",
    (),
    _P,
)
LOOKUPS = Metric(
    "pipeline_lookups_total",
    _C,
    "Look-ups of tenants, users and groups: hit (Redis) or miss (PostgreSQL).",
    ("result",),
    _P,
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
