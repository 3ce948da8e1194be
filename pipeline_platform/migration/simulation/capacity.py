"""The capacity of each stage of the old pipeline, derived from one number: events a second that its look-ups serve.

Service times are those of remote stores. They are simulated by sleeping, so the figures depend little on the machine.
At `PEAK_FACTOR` times its capacity about 15% of the events are lost, about 60% of them in look-ups.
"""

import time
from dataclasses import dataclass

# Offered events a second at a peak, as a multiple of the capacity.
PEAK_FACTOR = 1.16

_LOOKUP_S = 0.05
_WRITE_S = 0.04


@dataclass(frozen=True, slots=True)
class Capacity:
    """The limits of each stage; rates in events a second, times in seconds."""

    per_s: float

    @property
    def gateway_per_s(self) -> float:
        """The API gateway's throttle."""
        return self.per_s * 1.125

    @property
    def queue_per_s(self) -> float:
        """The queue's limit on sends."""
        return self.per_s * 1.105

    @property
    def lookups_at_once(self) -> int:
        """Connections to the look-up store."""
        return max(1, round(self.per_s * _LOOKUP_S))

    @property
    def lookup_s(self) -> float:
        """How long a look-up takes, including the network round trip."""
        return self.lookups_at_once / self.per_s

    @property
    def writes_at_once(self) -> int:
        """Connections to the store of events."""
        return max(1, round(self.per_s * _WRITE_S))

    @property
    def write_s(self) -> float:
        return self.writes_at_once / (self.per_s * 0.985)

    # For a free connection.
    lookup_timeout_s = 0.3
    write_timeout_s = 0.15
    # A message that was received and not finished within this time is lost.
    visibility_s = 10.0

    @property
    def functions_at_once(self) -> int:
        """Concurrent function invocations. Above this, messages stay in the queue."""
        return round(self.per_s * (self.lookup_timeout_s + self.write_timeout_s) * 2)


class TokenBucket:
    """`per_s` tokens a second. Its burst is the tokens of a quarter of a second."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s / 4)
        self._tokens = self._burst
        self._as_of = time.monotonic()

    def take_all(self, wanted: int) -> bool:
        """Take `wanted` tokens, or none if there are fewer. More than a burst needs only a full burst."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._as_of) * self._per_s)
        self._as_of = now
        if self._tokens < min(wanted, self._burst):
            return False
        self._tokens -= wanted
        return True
