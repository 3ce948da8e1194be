"""The last hour of one view, in memory, for rates and charts. It begins at the start of the process.

The account's numbers only grow within a window. When the window moves on (once an hour) or a number shrinks (a person
was erased), there is briefly no rate.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline_platform.account.numbers import Numbers
from pipeline_platform.watch.console.snapshot import Latency

_SPAN = timedelta(hours=1)
POINT_EVERY_S = 10.0
_EARLY_S = 0.5  # tolerance between timer and clock
_RATE_OVER_S = 8.0
STAGES = ("received", "accepted", "claimed", "enriched", "delivered")


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one time. legacy: the events that each stage of the old pipeline passed on."""

    at: datetime
    since: datetime
    numbers: Numbers
    legacy: dict[str, int]
    latency: Latency
    newest_batch: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a chart: events a second since the previous point, and the latencies then. None: unknown."""

    at: datetime
    rates: dict[str, float]
    latency: Latency


class LastHour:
    """The samples of the last seconds and the points of the last hour."""

    def __init__(self) -> None:
        self._recent: deque[Sample] = deque()
        self._marked: Sample | None = None
        self._batches: deque[tuple[datetime, int]] = deque()
        self.points: deque[Point] = deque()

    def add(self, sample: Sample) -> None:
        self._recent.append(sample)
        while len(self._recent) > 2 and _seconds(self._recent[1], sample) >= _RATE_OVER_S:
            self._recent.popleft()
        if self._marked is None:
            self._note(sample)
        elif _seconds(self._marked, sample) >= POINT_EVERY_S - _EARLY_S:
            self.points.append(Point(sample.at, _rates(self._marked, sample), sample.latency))
            self._note(sample)
        while self.points and self.points[0].at < sample.at - _SPAN:
            self.points.popleft()

    def _note(self, sample: Sample) -> None:
        self._marked = sample
        self._batches.append((sample.at, sample.newest_batch))
        while len(self._batches) > 1 and self._batches[1][0] < sample.at - timedelta(minutes=5):
            self._batches.popleft()

    @property
    def rates(self) -> dict[str, float]:
        """Events a second by stage over the last seconds. Stages of the old pipeline are `legacy STAGE`."""
        return _rates(self._recent[0], self._recent[-1]) if len(self._recent) > 1 else {}

    @property
    def batches_lately(self) -> int:
        """How many batches were accepted in the last five minutes, as far as known."""
        return self._batches[-1][1] - self._batches[0][1] if self._batches else 0


def _rates(earlier: Sample, later: Sample) -> dict[str, float]:
    seconds = _seconds(earlier, later)
    if seconds <= 0 or earlier.since != later.since:
        return {}
    ours = {stage: getattr(later.numbers, stage) - getattr(earlier.numbers, stage) for stage in STAGES}
    theirs = {f"legacy {stage}": count - earlier.legacy.get(stage, 0) for stage, count in later.legacy.items()}
    return {stage: events / seconds for stage, events in (ours | theirs).items() if events >= 0}


def _seconds(earlier: Sample, later: Sample) -> float:
    return (later.at - earlier.at).total_seconds()
