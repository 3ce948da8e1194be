"""What each process counts of itself, in files under ``home/metrics`` that a gateway of the same home serves together.

prometheus-client's files for many processes, named by what a process is (gateway-8080, worker-2) and not by its number:
one that is started again goes on counting where the dead one ended, and there are never more files than processes. They
may be deleted while nothing runs; a power cut may lose the last counts, and nothing else depends on them.
"""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Counter, Histogram, values

from pipeline_platform.telemetry.metrics import catalogue as names
from pipeline_platform.telemetry.metrics.catalogue import Metric


def directory(home: Path) -> Path:
    """Where the files are; made where there is none."""
    path = home / "metrics"
    path.mkdir(parents=True, exist_ok=True)
    return path


def share_numbers(home: Path, process: str) -> None:
    """Whatever this process counts from now on lies under `home`. process: what no other process there is called."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory(home))
    values.ValueClass = values.MultiProcessValue(lambda: process)  # pyright: ignore[reportUnknownMemberType]


class GatewayNumbers:
    """Of one gateway process."""

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
    """Of one worker process."""

    def __init__(self, lanes: Iterable[str]) -> None:
        batches, outcomes, lookups = (
            _counter(one) for one in (names.WORKER_BATCHES, names.WORKER_EVENTS, names.LOOKUPS)
        )
        self._batches = {lane: batches.labels(lane) for lane in lanes}
        self._outcomes = [outcomes.labels(outcome) for outcome in ("delivered", "duplicate", "dead_lettered")]
        self._hits, self._misses = lookups.labels("hit"), lookups.labels("miss")
        self._seconds = _histogram(names.WORKER_STEP_SECONDS)

    def stepped(self, lane: str, batches: int, outcomes: tuple[int, int, int], seconds: float) -> None:
        """outcomes: events delivered, duplicate and dead-lettered by a step of so many seconds."""
        self._batches[lane].inc(batches)
        self._seconds.observe(seconds)
        for counter, events in zip(self._outcomes, outcomes, strict=True):
            if events:
                counter.inc(events)

    def looked_up(self, hits: int, misses: int) -> None:
        self._hits.inc(hits)
        self._misses.inc(misses)


class RowNumbers:
    """What was left out of the rows that this process made."""

    def __init__(self) -> None:
        self._times, self._traits = _counter(names.UNUSABLE_TIMES), _counter(names.TRAITS_LEFT_OUT)

    def made(self, unusable_times: int, traits_left_out: int) -> None:
        if unusable_times:
            self._times.inc(unusable_times)
        if traits_left_out:
            self._traits.inc(traits_left_out)


@functools.cache
def row_numbers() -> RowNumbers:
    """Those of this process: two counters of one name would each write its own sum into the process's file."""
    return RowNumbers()


def _counter(metric: Metric) -> Counter:
    return Counter(metric.name.removesuffix("_total"), metric.about, metric.labels, registry=None)


def _histogram(metric: Metric) -> Histogram:
    return Histogram(metric.name, metric.about, metric.labels, registry=None, buckets=metric.bounds)
