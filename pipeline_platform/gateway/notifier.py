"""Wakes the workers after commits: NOTIFY on a connection of its own, never in the way of an answer.

At most one is under way; what commits meanwhile shares the next. A lost one delays events until the workers' next
look of their own, nothing else.
"""

import asyncio
import logging

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.gateway.db_connection import StatementLink
from pipeline_platform.kill_points import reach

_LOG = logging.getLogger(__name__)
_SQL = queries("gateway")
_REST_S = 1.0


class Notifier:
    """Tells the workers that there is work. Its link needs no durability: NOTIFY would wait for an fsync."""

    def __init__(self, link: StatementLink) -> None:
        self._link = link
        self._due = asyncio.Event()

    def wake_workers(self) -> None:
        """Soon; returns at once."""
        self._due.set()

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            reach("gateway.notifier")
            try:
                await self._link.run(_SQL["wake_workers"])
            except psycopg.Error as error:
                _LOG.warning("workers were not notified, they look by themselves: %s", error)
                await asyncio.sleep(_REST_S)
