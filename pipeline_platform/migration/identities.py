"""Identities of the events in a table of the user's own, which is the old pipeline's output.

The identity of a messageId that is no UUID is a UUIDv5, which PostgreSQL cannot compute without an extension. So it is
computed here and stored in legacy.identities, where legacy.event_id_of finds it. Until then legacy.output shows the
row without an event_id, and every comparison ignores it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from pipeline_platform.db import queries
from pipeline_platform.event.types import event_id_of

_SQL = queries("identities")
_CHUNK = 10_000
# The old pipeline's clock may differ, and its rows may arrive late.
_MARGIN = timedelta(hours=1)


def store_identities(conn: psycopg.Connection[Any], since: datetime | None = None) -> int:
    """Store what is missing; returns the number of rows. conn: in autocommit mode.

    since: reads only rows that the old pipeline received from an hour before that time on. None: reads all rows.
    """
    rows = 0
    with conn.transaction(), conn.cursor(name="unknown", row_factory=tuple_row) as unknown:
        # A fetch ends with the table if few rows are found.
        conn.execute("SET LOCAL statement_timeout = 0")
        unknown.execute(_SQL["unknown"], {"since": since and since - _MARGIN})
        while found := unknown.fetchmany(_CHUNK):
            _store(conn, [message_id for (message_id,) in found])
            rows += len(found)
    return rows


def _store(conn: psycopg.Connection[Any], message_ids: Sequence[str]) -> None:
    hashes = [sha256(message_id.encode()).digest() for message_id in message_ids]
    conn.execute(_SQL["store"], (hashes, [event_id_of(message_id) for message_id in message_ids]))
