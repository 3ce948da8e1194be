"""Opens the circuit if most events that a worker recently processed became dead letters, for most of its tenants.

After a bad deploy all accepted events would become dead letters within minutes. While the circuit is open, all workers
wait; events are accepted and kept. `pipeline-platform circuit close` lets the workers go on.

Each worker judges the events that it processed, by its part of `circuit_events`. A tenant is hit if most of its own
events fail. A bad deploy hits all tenants, bad data one. So three tenants have to be hit, or both if two sent within a
day, or the only one of an installation. The events of one tenant never open the circuit for another.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("circuit")
_WINDOW_S = 30.0
# This many tenants have to be hit, or both if two sent within a day, or the only one of an installation.
_TENANTS_MIN = 3


def is_open(conn: psycopg.Connection[Any]) -> bool:
    """Whether the circuit is open, so that nothing is processed."""
    return conn.execute(_SQL["is_open"]).fetchone() == (True,)


class Circuit:
    """The results of one worker in the last half minute."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._ratio = settings.circuit_ratio
        self._events_min = max(1, settings.circuit_events // settings.workers)
        self._clock = clock
        self._seen: deque[tuple[float, Counter[int], Counter[int]]] = deque()
        self.tripped: str | None = None
        self._bad_tenants = 0

    def note(self, good: Iterable[int], bad: Iterable[int]) -> None:
        """Note the tenants of events that were written, and of those that became dead letters."""
        now = self._clock()
        self._seen.append((now, Counter(good), Counter(bad)))
        while self._seen[0][0] < now - _WINDOW_S:
            self._seen.popleft()
        if self._seen[-1][2]:
            self._judge()

    def look(self, conn: psycopg.Connection[Any]) -> bool:
        """Open the circuit if it tripped and enough tenants are hit. Returns whether it is open."""
        if self.tripped:
            conn.execute(
                _SQL["open"],
                {"message": self.tripped, "bad_tenants": self._bad_tenants, "tenants_min": _TENANTS_MIN},
            )
        open_now = is_open(conn)
        if open_now:
            # After it is closed, counting starts from zero.
            self._seen.clear()
        self.tripped = None
        return open_now

    def _judge(self) -> None:
        good: Counter[int] = Counter()
        bad: Counter[int] = Counter()
        for _, written, buried in self._seen:
            good.update(written)
            bad.update(buried)
        events = good.total() + bad.total()
        tenants = good.keys() | bad.keys()
        hit = [tenant for tenant, letters in bad.items() if letters >= self._ratio * (letters + good[tenant])]
        if events < self._events_min or bad.total() < self._ratio * events or len(hit) * 2 < len(tenants):
            return
        self._bad_tenants = len(hit)
        self.tripped = (
            f"{bad.total():,} of {events:,} events became dead letters within {_WINDOW_S:.0f} s, most of those of "
            f"{len(hit)} of {len(tenants)} tenants: nothing is processed until the circuit is closed. See: "
            "pipeline-platform dead-letters list; then: pipeline-platform circuit close --reason …"
        )
