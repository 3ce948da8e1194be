"""Writes the events of a request in which the database found bad data.

The gateway rejects data that PostgreSQL cannot hold before this step. An event that it overlooks is isolated here: it
alone goes to quarantine as `unstorable`, with the database's reason, and the other events are accepted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import psycopg

from pipeline_platform.errors import is_bad_data
from pipeline_platform.event.types import AcceptedEvent, Lane, RejectedEvent
from pipeline_platform.gateway.db_connection import BoundedConnection
from pipeline_platform.gateway.protocol import Judged
from pipeline_platform.halving import Halves
from pipeline_platform.queue.batches import accept

_Conn = psycopg.AsyncConnection[Any]


class Late(NamedTuple):
    """An event that only the database rejected. `accepted_index`: its position among the accepted events."""

    accepted_index: int
    event: RejectedEvent


class Isolation:
    """Writes one request at a time on a connection of its own, since it takes many statements."""

    def __init__(self, connection: BoundedConnection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def accept(self, lane: Lane, judged: Judged) -> list[Late]:
        """Write one transaction. Events that cannot be written go to quarantine. Raises psycopg errors."""
        async with self._turn, self._connection.bounded() as conn, conn.transaction():
            late = await _accept_splitting(conn, lane, list(enumerate(judged.accepted)))
            for event in [*judged.rejected, *(one.event for one in late)]:
                await _quarantine(conn, lane, event)
        return late

    async def close(self) -> None:
        """Close its connection."""
        await self._connection.close()


async def _accept_splitting(conn: _Conn, lane: Lane, events: Sequence[tuple[int, AcceptedEvent]]) -> list[Late]:
    late: list[Late] = []
    parts = Halves(events)
    for part in parts:
        try:
            async with conn.transaction():
                await accept(conn.execute, lane, [event for _, event in part], [])
        except psycopg.Error as error:
            if not is_bad_data(error):
                raise
            if not parts.split(part):
                late.append(_late(*part[0], error))
    return late


async def _quarantine(conn: _Conn, lane: Lane, event: RejectedEvent) -> None:
    """Quarantine an event. If its texts cannot be written, drop the messageId and escape the message."""
    try:
        async with conn.transaction():
            await accept(conn.execute, lane, [], [event])
    except psycopg.Error as error:
        if not is_bad_data(error):
            raise
        await accept(conn.execute, lane, [], [replace(event, message_id=None, message=ascii(event.message))])


def _late(index: int, event: AcceptedEvent, error: psycopg.Error) -> Late:
    reason = error.diag.message_primary or str(error)
    return Late(index, RejectedEvent(event.tenant_id, str(event.event_id), "unstorable", reason, event.payload))
