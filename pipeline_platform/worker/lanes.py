"""Decides which lane a worker serves next. Every lane has a minimum share of the worker's time and a cap.

The lane furthest below its share goes first, so a busy lane never starves another. Unused time goes to the lanes that
have work, up to their caps.
"""

import time
from collections.abc import Callable, Mapping

from pipeline_platform.event.types import Lane

_MEMORY_S = 2.0


class LaneShares:
    """The time that a worker recently spent on each lane, with exponential decay."""

    def __init__(
        self,
        shares: Mapping[str, float],
        caps: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default_shares, self._default_caps = shares, caps
        self._shares: dict[Lane, float] = {}
        self._caps: dict[Lane, float] = {}
        for lane in Lane:
            self.limit(lane, None, None)
        self._used_s = dict.fromkeys(Lane, 0.0)
        self._clock = clock
        self._as_of = clock()

    def limit(self, lane: Lane, share: float | None, cap: float | None) -> None:
        """Change a lane's share and cap. None: as configured."""
        self._shares[lane] = max(share or self._default_shares.get(lane.value, 0.0), 0.001)
        self._caps[lane] = cap or self._default_caps.get(lane.value, 1.0)

    def used(self, lane: Lane, seconds: float) -> None:
        """Note time spent on a lane."""
        self._forget()
        self._used_s[lane] += seconds

    def order(self) -> list[Lane]:
        """The lanes to try, most entitled first. A lane over its cap is left out."""
        self._forget()
        window_s = _MEMORY_S / 0.693
        within_cap = [
            lane for lane in Lane if self._caps[lane] >= 1 or self._used_s[lane] < self._caps[lane] * window_s
        ]
        return sorted(within_cap, key=lambda lane: self._used_s[lane] / self._shares[lane])

    def _forget(self) -> None:
        """Decay the used time. Idle time counts: a lane over its cap returns even if no other lane is served."""
        now = self._clock()
        keep = 0.5 ** ((now - self._as_of) / _MEMORY_S)
        self._used_s = {lane: spent * keep for lane, spent in self._used_s.items()}
        self._as_of = now
