"""Where claims may start in the index, so that they do not read the entries of work that is done.

A mark is safe if no transaction can still commit work with a smaller id. Ids become visible in another order than
they are drawn, and a commit may take any time. A transaction that inserts a row holds the table's ROW EXCLUSIVE lock
from before the id is drawn until the row is visible to all. So an id is final once each transaction that held this
lock after the id was drawn has ended (docs/decisions/0004).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.event.types import Lane

_EVERY_S = 1.0
_SQL = queries("queue")


@dataclass
class FinalIds:
    """The id up to which each drawn id has a visible row or never will. For one table and one server connection."""

    final: int = 0
    _drawn: int = 0
    _candidate: int = 0
    _writers: set[str] = field(default_factory=set[str])

    def look(self, drawn: int, writers: Iterable[str]) -> int:
        """Update `final` after a look that read the highest drawn id and the transactions that write the table.

        One statement may read both in any order, so the writers are compared with the id of the previous look.
        """
        now = set(writers)
        self._writers &= now
        if not self._writers:
            self.final = self._candidate if now else self._drawn
            self._candidate, self._writers = self._drawn, now
        self._drawn = drawn
        return self.final


@dataclass
class LowWater:
    """The marks of one worker, by lane, refreshed at most once a second."""

    marks: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    _ids: FinalIds = field(default_factory=FinalIds)
    _refreshed_at: float = float("-inf")

    def refresh(self, conn: psycopg.Connection[Any]) -> None:
        """Advance the marks as far as one look at the queue allows. Call it outside a transaction."""
        now = time.monotonic()
        if now - self._refreshed_at < _EVERY_S:
            return
        self._refreshed_at = now
        row = conn.execute(_SQL["horizon"]).fetchone()
        assert row
        final = self._ids.look(*row)
        if not final:
            return
        for lane, mark in self.marks.items():
            params = {"lane": lane.value, "low_water": mark, "horizon": final}
            found = conn.execute(_SQL["low_water"], params).fetchone()
            self.marks[lane] = max(mark, found[0] if found else mark)
