"""Reads the ids of all events that are kept as bytes, into a temporary table of this session.

Delivered rows have these ids in columns. Batches, dead letters and quarantined events have to be decoded, including
those in flight. All kept events of a tenant are read: about 2 µs an event.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.erasure.person import Person, find_person, ids_of
from pipeline_platform.event.person_ids import Ids
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.queue.batches import Work, batch_of, read

_SQL = queries("erasure")
_BATCHES_AT_ONCE = 64

Conn = psycopg.Connection[Any]
Place = tuple[int, datetime]


def look_for(conn: Conn, tenant_id: int, user_id: str, before: datetime | None, also: Collection[str] = ()) -> Person:
    """Fill the table with what was received before that time (None: all); follow its links to all ids of the person.

    also: other user ids of the same person.
    """
    users = [user_id, *also]
    conn.execute(_SQL["make_scan"])
    conn.execute(_SQL["empty_scan"])
    _scan_batches(conn, tenant_id, users, before)
    for source in ("dead_letters", "quarantine"):
        rows = conn.execute(_SQL[f"{source}_of_tenant"], {"tenant_id": tenant_id, "before": before}).fetchall()
        found = [(source, row_id, None, None, *ids_of(payload, users)) for row_id, payload in rows]
        _copy(conn, found)

    def links(ids: Sequence[str]) -> Iterator[Ids]:
        for row in conn.execute(_SQL["links"], {"tenant_id": tenant_id, "ids": list(ids)}):
            yield Ids(*row)

    buried = [row[0] for row in conn.execute(_SQL["buried_ids"], {"tenant_id": tenant_id, "user_id": user_id})]
    return find_person(tenant_id, user_id, links, also, buried)


def read_batches(conn: Conn, places: Sequence[Place]) -> Iterator[Work]:
    """Batches by their (batch_id, received_at). Batches dropped meanwhile are left out."""
    params = {"batch_ids": [place[0] for place in places], "received_ats": [place[1] for place in places]}
    for row in conn.cursor(binary=True).execute(_SQL["batches"], params):
        yield batch_of(row)


def _scan_batches(conn: Conn, tenant_id: int, users: Collection[str], before: datetime | None) -> None:
    places: list[Place] = conn.execute(_SQL["batches_of_tenant"], {"tenant_id": tenant_id, "before": before}).fetchall()  # pyright: ignore[reportAssignmentType]
    for start in range(0, len(places), _BATCHES_AT_ONCE):
        works = list(read_batches(conn, places[start : start + _BATCHES_AT_ONCE]))
        _copy(conn, [row for work in works for row in _rows(read(work), tenant_id, users)])


def _rows(events: Sequence[QueuedEvent], tenant_id: int, users: Collection[str]) -> Iterator[tuple[Any, ...]]:
    for event in events:
        if event.tenant_id == tenant_id and event.payload:
            ids = ids_of(event.payload, users)
            yield ("queue", event.batch_id, event.batch_received_at, event.event_id, *ids)


def _copy(conn: Conn, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        with conn.cursor() as cursor, cursor.copy(_SQL["fill_scan"]) as copy:
            for row in rows:
                copy.write_row(row)
