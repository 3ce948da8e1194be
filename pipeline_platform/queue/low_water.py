"""Where claiming may start in the index, so that entries of work long done are not walked.

A mark is safe when no transaction can still commit work with a smaller id. Ids are drawn inside transactions that last
at most `ACCEPT_SECONDS_MAX` (transaction_timeout on every connection that accepts or imports), so an id seen that long
ago is either visible now or never. Snapshots would not do: one forgotten transaction would hold the mark for ever.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.event import Lane

ACCEPT_SECONDS_MAX = 10.0
_EVERY_S = 1.0
_SQL = queries("queue")


@dataclass
class LowWater:
    """The mark of one worker, by lane; refreshed at most once a second."""

    marks: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    _seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _refreshed_at: float = float("-inf")

    def refresh(self, conn: psycopg.Connection[Any]) -> None:
        """Advance the marks by what one look at the queue allows. Call outside a transaction."""
        now = time.monotonic()
        if now - self._refreshed_at < _EVERY_S:
            return
        self._refreshed_at = now
        row = conn.execute(_SQL["horizon"]).fetchone()
        self._seen.append((now, row[0] if row else 0))
        settled = 0
        while self._seen and self._seen[0][0] <= now - ACCEPT_SECONDS_MAX:
            settled = self._seen.popleft()[1]
        if not settled:
            return
        for lane, mark in self.marks.items():
            params = {"lane": lane.value, "low_water": mark, "horizon": settled}
            found = conn.execute(_SQL["low_water"], params).fetchone()
            self.marks[lane] = max(mark, found[0] if found else mark)
