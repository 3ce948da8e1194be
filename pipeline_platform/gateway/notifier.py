"""Wakes the workers after commits with NOTIFY on a separate connection, so that no response waits for it.

At most one NOTIFY is in progress; commits during it share the next one. A lost NOTIFY only delays events until the
workers look by themselves.
"""

import asyncio
import logging

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.gateway.db_connection import StatementConnection
from pipeline_platform.kill_points import reach

_LOG = logging.getLogger(__name__)
_SQL = queries("gateway")
_REST_S = 1.0


class Notifier:
    """Tells the workers that there is work. Its connection needs no durability: NOTIFY would wait for an fsync."""

    def __init__(self, connection: StatementConnection) -> None:
        self._connection = connection
        self._due = asyncio.Event()

    def wake_workers(self) -> None:
        """Request a NOTIFY and return at once."""
        self._due.set()

    async def run(self) -> None:
        """Send the requested NOTIFYs forever."""
        while True:
            await self._due.wait()
            self._due.clear()
            reach("gateway.notifier")
            try:
                await self._connection.run(_SQL["wake_workers"])
            except psycopg.Error as error:
                _LOG.warning("workers were not notified, and find the events by polling: %s", error)
                await asyncio.sleep(_REST_S)
