"""Counts of each process, in files under ``home/metrics`` that a gateway of the same home serves together.

The files are those of prometheus-client's multiprocess mode, named by the role of a process (gateway-8080, worker-2)
and not by its pid. So a restarted process continues the counts of its predecessor, and there are never more files than
processes. The files may be deleted while nothing runs. A power cut may lose the last counts; nothing else depends on
them.
"""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Counter, Histogram, values

from pipeline_platform.telemetry.metrics import catalogue as names
from pipeline_platform.telemetry.metrics.catalogue import Metric


def directory(home: Path) -> Path:
    """The directory of the files; created if it is missing."""
    path = home / "metrics"
    path.mkdir(parents=True, exist_ok=True)
    return path


def share_numbers(home: Path, process: str) -> None:
    """Write all counts of this process under `home` from now on. process: a name that is unique there."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory(home))
    values.ValueClass = values.MultiProcessValue(lambda: process)  # pyright: ignore[reportUnknownMemberType]


class GatewayNumbers:
    """Counts of one gateway process."""

    def __init__(self) -> None:
        self._requests = _counter(names.REQUESTS)
        self._by_status: dict[int, Counter] = {}
        self._commit_events = _histogram(names.COMMIT_EVENTS)
        self._commit_seconds = _histogram(names.COMMIT_SECONDS)

    def answered(self, status: int) -> None:
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._requests.labels(str(status))
        counter.inc()

    def committed(self, events: int, seconds: float) -> None:
        self._commit_events.observe(events)
        self._commit_seconds.observe(seconds)


class WorkerNumbers:
    """Counts of one worker process."""

    def __init__(self, lanes: Iterable[str]) -> None:
        batches, outcomes, lookups = (
            _counter(one) for one in (names.WORKER_BATCHES, names.WORKER_EVENTS, names.LOOKUPS)
        )
        self._batches = {lane: batches.labels(lane) for lane in lanes}
        self._outcomes = [outcomes.labels(outcome) for outcome in ("delivered", "duplicate", "dead_lettered")]
        self._hits, self._misses = lookups.labels("hit"), lookups.labels("miss")
        self._seconds = _histogram(names.WORKER_STEP_SECONDS)

    def stepped(self, lane: str, batches: int, outcomes: tuple[int, int, int], seconds: float) -> None:
        """Count one step. outcomes: its delivered, duplicate and dead-lettered events; seconds: its duration."""
        self._batches[lane].inc(batches)
        self._seconds.observe(seconds)
        for counter, events in zip(self._outcomes, outcomes, strict=True):
            if events:
                counter.inc(events)

    def looked_up(self, hits: int, misses: int) -> None:
        self._hits.inc(hits)
        self._misses.inc(misses)


class RowNumbers:
    """Values that were left out of the rows that this process made."""

    def __init__(self) -> None:
        self._times, self._traits = _counter(names.UNUSABLE_TIMES), _counter(names.TRAITS_LEFT_OUT)

    def made(self, unusable_times: int, traits_left_out: int) -> None:
        if unusable_times:
            self._times.inc(unusable_times)
        if traits_left_out:
            self._traits.inc(traits_left_out)


@functools.cache
def row_numbers() -> RowNumbers:
    """The counts of this process, made once: two counters of one name would overwrite each other in its file."""
    return RowNumbers()


def _counter(metric: Metric) -> Counter:
    return Counter(metric.name.removesuffix("_total"), metric.about, metric.labels, registry=None)


def _histogram(metric: Metric) -> Histogram:
    return Histogram(metric.name, metric.about, metric.labels, registry=None, buckets=metric.bounds)
