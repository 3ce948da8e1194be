"""The mirror's low-water mark, and whether each commit wakes the mirror.

It is a low-water mark like the queue's, for the mirror's own table (pipeline_platform.queue.low_water explains why it
is safe). It is needed because finished rows leave index entries, which an old transaction may keep for long.
"""

from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.queue.low_water import FinalIds

_SQL = queries("mirror")


class MirrorLowWater:
    """Refreshed periodically. `low_water` 0 is always correct, but slower."""

    def __init__(self) -> None:
        self.low_water = 0
        self._ids = FinalIds()
        self._listens = False

    async def refresh(self, conn: psycopg.AsyncConnection[Any], side: psycopg.AsyncConnection[Any]) -> None:
        """Advance the mark as far as is safe; listen on `side` only while events are mirrored."""
        row = await (await conn.execute(_SQL["look"], prepare=True)).fetchone()
        assert row
        is_mirrored, drawn, writers = row
        if is_mirrored != self._listens:
            await side.execute("LISTEN queue_work" if is_mirrored else "UNLISTEN queue_work")
            self._listens = is_mirrored
        final = self._ids.look(drawn, writers)
        if final:
            params = {"low_water": self.low_water, "horizon": final}
            found = await (await conn.execute(_SQL["low_water"], params, prepare=True)).fetchone()
            assert found
            self.low_water = max(self.low_water, found[0])
