"""Where the mirror looks for batches, and whether it is to be woken for each commit.

The mark is the queue's low-water mark for the mirror's own table (see pipeline_platform.queue.low_water for why it is
safe): rows that are done leave index entries, and some old transaction may keep them for long.
"""

from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.queue.low_water import SettledIds

_SQL = queries("mirror")


class Mark:
    """Refreshed now and then; `low_water` 0 is always right, only slower."""

    def __init__(self) -> None:
        self.low_water = 0
        self._ids = SettledIds()
        self._listens = False

    async def refresh(self, conn: psycopg.AsyncConnection[Any], side: psycopg.AsyncConnection[Any]) -> None:
        """Advance the mark by what one look allows; listen on `side` while, and only while, anything is mirrored."""
        row = await (await conn.execute(_SQL["look"], prepare=True)).fetchone()
        assert row
        is_mirrored, drawn, writers = row
        if is_mirrored != self._listens:
            await side.execute("LISTEN queue_work" if is_mirrored else "UNLISTEN queue_work")
            self._listens = is_mirrored
        settled = self._ids.look(drawn, writers)
        if settled:
            params = {"low_water": self.low_water, "horizon": settled}
            found = await (await conn.execute(_SQL["low_water"], params, prepare=True)).fetchone()
            assert found
            self.low_water = max(self.low_water, found[0])
