"""When one worker claims, and how much. It learns both from its claims."""

import time
from collections.abc import Sequence

from pipeline_platform.queue.batches import Work, is_full

_BATCHES_MAX = 256
# Claims of one worker start at least this far apart. At 600 single events a second a claim then takes two or three,
# which leaves the cores to the commits.
_CLAIM_EVERY_S = 0.004
# The first worker serves live events at once. The others take those that have waited this long. At rates that one
# worker can serve, two would make smaller claims, and each claim costs a load and a commit.
_HELP_AFTER_S, _HELP_AFTER_MAX_S = 0.008, 0.02
# The first of several workers leaves replays to the others until this long after a live event.
_KEEP_FREE_S = 0.1


class Pacing:
    """The pace of the worker of one slot. events_max: events after which a claim takes no further batch."""

    def __init__(self, slot: int, workers: int, events_max: int) -> None:
        self.events_max = events_max
        self.help_after_s = _HELP_AFTER_S if slot > 1 else 0.0
        self._keeps_free = slot == 1 and workers > 1
        self._free_until = 0.0
        self._later_s = self.help_after_s
        self._events_a_batch = 1.0
        self._claimed_at = 0.0
        self.took_all = False

    def batches(self) -> int:
        """How many batches the next claim takes at most."""
        return max(1, min(_BATCHES_MAX, int(self.events_max / self._events_a_batch)))

    def claimed(self, works: Sequence[Work], limit: int) -> None:
        """Learn from a claim of up to `limit` batches, before they are processed."""
        events = sum(work.events for work in works)
        # More work than this may wait.
        self.took_all = len(works) == limit or events >= self.events_max or is_full(works)
        self._claimed_at = time.monotonic()
        self._events_a_batch += (events / len(works) - self._events_a_batch) * 0.2

    def live_served(self, at: float) -> None:
        """Live events were processed until `at`, on the monotonic clock."""
        if self._keeps_free:
            self._free_until = at + _KEEP_FREE_S

    def is_kept_free(self, at: float) -> bool:
        """Whether this worker leaves replays to the others now."""
        return at < self._free_until

    def turned(self, *, served: bool, woken: bool) -> None:
        """A turn has ended. A worker that was woken and found nothing to do comes later next time."""
        if served:
            self._later_s = self.help_after_s
        elif woken:
            self._later_s = min(self._later_s * 2, _HELP_AFTER_MAX_S)

    def pause_s(self) -> float:
        """Seconds until the next claim may start."""
        return max(self._later_s, self._claimed_at + _CLAIM_EVERY_S - time.monotonic(), 0.0)
