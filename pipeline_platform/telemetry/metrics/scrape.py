"""One scrape: all metrics from PostgreSQL, in one snapshot and a dozen set-based queries.

Its cost depends on the number of tenants, kept hours and open items. It does not grow with the events or with the age
of the installation, except for the old pipeline's counts during a migration. Writes nothing. While PostgreSQL is down,
`pipeline_up` is 0 and the rest of the account is missing.
"""

import contextlib
import importlib.metadata
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, LiteralString

import psycopg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from pipeline_platform.db import connect, queries
from pipeline_platform.disk import room_under
from pipeline_platform.errors import is_transient
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics import catalogue as names
from pipeline_platform.telemetry.metrics.catalogue import Kind, Metric

_SQL = queries("metrics")
_STATEMENT_S = 10.0
# Sums every hour of a migration, 0.4 s a million rows: so it is read less often than at each scrape.
_SELDOM = "legacy_pipeline"
_SELDOM_S = 30.0
Row = tuple[Any, ...]
Found = dict[str, list[Row]]


class Platform(Collector):
    """The metrics from PostgreSQL as Prometheus families. One scrape at a time, on its own connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._conn: psycopg.Connection[Any] | None = None
        self._seldom_at = float("-inf")
        self._seldom: list[Row] = []

    def collect(self) -> Iterator[Family]:
        """Read and yield every family of source `database`."""
        begin = time.monotonic()
        try:
            with self._turn:
                found = self._read()
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            found = None
        yield _gauge(names.UP, [((), found is not None)])
        # Without the disk, the other metrics are still worth having.
        with contextlib.suppress(OSError):
            yield _gauge(names.DISK_FREE, [((), room_under(self._settings.home).free)])
        if found is not None:
            yield from _families(found)
        yield _gauge(names.SCRAPE_SECONDS, [((), time.monotonic() - begin)])

    def _read(self) -> Found:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._settings.database_url, "metrics", statement_timeout_s=_STATEMENT_S)
        params = {"retention": self._settings.retention}
        try:
            with self._conn.transaction():
                self._conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                found = {name: self._rows(query, params) for name, query in _SQL.items() if name != _SELDOM}
                if time.monotonic() - self._seldom_at > _SELDOM_S:
                    self._seldom = self._rows(_SQL[_SELDOM], params)
                    self._seldom_at = time.monotonic()
                return found | {_SELDOM: self._seldom}
        except psycopg.Error:
            self._conn.close()
            raise

    def _rows(self, query: LiteralString, params: dict[str, Any]) -> list[Row]:
        assert self._conn
        return self._conn.execute(query, params).fetchall()


def _families(found: Found) -> Iterator[Family]:
    totals, queue, [server] = found["totals"], found["queue"], found["server"]
    [hours], [drift], [mirror] = found["hours"], found["drift"], found["mirror"]
    yield _gauge(names.BUILD_INFO, [((importlib.metadata.version("pipeline-platform"), server[2]), 1)])
    yield _counter(
        names.EVENTS,
        [((row[0], stage), value) for row in totals for stage, value in zip(names.STAGES, row[1:-1], strict=True)],
    )
    yield _gauge(names.IN_FLIGHT, [((row[0],), row[-1]) for row in totals])
    yield _histogram(names.LATENCY, found["latency"])
    yield _gauge(names.QUEUE_PIECES, [((row[0],), row[1]) for row in queue])
    yield _gauge(names.QUEUE_EVENTS, [((row[0],), row[2]) for row in queue])
    yield _gauge(names.QUEUE_AGE, [((row[0],), row[3]) for row in queue])
    yield _gauge(names.SUSPECTS, [((), sum(row[4] for row in queue))])
    yield _gauge(names.DEAD_LETTERS, _dead_letters(totals, found["dead_letters"]))
    yield _gauge(names.UNBALANCED, [((), found["unbalanced"][0][0])])
    yield _gauge(names.PARTITIONS, _labelled(("ahead", "retained", "sealed", "unsealed"), hours))
    yield _gauge(names.DATABASE_BYTES, [((), server[0])])
    yield _gauge(names.OLDEST_TRANSACTION, [((), server[1])])
    yield _gauge(names.CIRCUIT_OPEN, [((), server[3])])
    yield _gauge(names.ALERTS_OPEN, [((kind,), count) for kind, count in found["alerts"]])
    yield _gauge(names.CUTOVER_PHASE, [((phase,), now) for phase, _, now in found["cutover"]])
    yield _gauge(names.CUTOVER_EPOCH, [((), found["cutover"][0][1])])
    yield _gauge(names.DRIFT, _labelled(("missing", "extra", "mismatched"), drift))
    yield _gauge(names.MIRROR_EVENTS, [((), mirror[0])])
    yield _gauge(names.MIRROR_AGE, [((), mirror[1])])
    yield _counter(
        names.LEGACY_PIPELINE,
        [
            ((stage, result), value)
            for stage, *values in found["legacy_pipeline"]
            for result, value in zip(("arrived", "proceeded", "failed"), values, strict=True)
        ],
    )
    replays = found["replays"]
    yield _gauge(names.REPLAYS, [((row[0],), row[1]) for row in replays])
    yield _gauge(names.REPLAY_PLANNED, [((), sum(row[2] or 0 for row in replays))])
    yield _gauge(names.REPLAY_DONE, [((), sum(row[3] or 0 for row in replays))])


_Sample = tuple[Sequence[str], float]


def _labelled(labels: Sequence[str], values: Row) -> list[_Sample]:
    return [((label,), value) for label, value in zip(labels, values, strict=True)]


def _dead_letters(totals: Sequence[Row], found: Sequence[Row]) -> list[_Sample]:
    """Includes zeros, so that an increase from zero is visible."""
    states = {(row[0], state): 0 for row in totals for state in ("waiting", "exhausted")}
    return list((states | {(tenant, state): events for tenant, state, events in found}).items())


def _gauge(metric: Metric, samples: Sequence[_Sample]) -> Family:
    assert metric.kind is Kind.GAUGE
    family = GaugeMetricFamily(metric.name, metric.about, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family


def _counter(metric: Metric, samples: Sequence[_Sample]) -> Family:
    assert metric.kind is Kind.COUNTER
    family = CounterMetricFamily(metric.name, metric.about, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family


def _histogram(metric: Metric, rows: Sequence[Row]) -> Family:
    """Make a histogram. rows: lane, bucket, events, seconds; buckets without events have no row."""
    assert metric.kind is Kind.HISTOGRAM
    family = HistogramMetricFamily(metric.name, metric.about, labels=metric.labels)
    bounds = [*map(str, metric.bounds), "+Inf"]
    for lane in sorted({row[0] for row in rows}):
        counts = dict.fromkeys(range(len(bounds)), 0) | {row[1]: row[2] for row in rows if row[0] == lane}
        buckets = list(zip(bounds, accumulate(map(float, counts.values())), strict=True))
        family.add_metric((lane,), buckets, sum(row[3] for row in rows if row[0] == lane))
    return family
