"""Events put into the queue, as the gateway's commit puts them there."""

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from pipeline_platform.event.types import AcceptedEvent, EventType, Lane, RejectedEvent, TenantId, event_id_of
from pipeline_platform.queue import batches

Conn = psycopg.Connection[Any]


class Batch(NamedTuple):
    """What the queue answers: where the events are."""

    batch_id: int
    received_at: datetime


def event(
    tenant: int,
    message_id: str | None = None,
    kind: EventType = EventType.TRACK,
    *,
    client_at: datetime | None = None,
    payload: bytes | None = None,
    envelope: bytes = b"",
    **fields: Any,
) -> AcceptedEvent:
    """A valid event with these fields, and without those that are None. payload: other bytes instead.

    Without a messageId it has one of its own.
    """
    named = message_id or str(uuid.uuid4())
    body = {"type": kind.value, "messageId": named, "userId": "u1", "event": "Clicked"} | fields
    given = {name: value for name, value in body.items() if value is not None}
    written = json.dumps(given).encode() if payload is None else payload
    return AcceptedEvent(TenantId(tenant), event_id_of(named), kind, client_at, written, envelope)


def accept(conn: Conn, *events: AcceptedEvent, lane: Lane = Lane.LIVE, rejected: Sequence[RejectedEvent] = ()) -> Batch:
    """One batch of these events, and what is rejected beside them."""
    row = batches.accept(conn.execute, lane, events, rejected).fetchone()
    assert row
    return Batch(*row)


def accept_ids(conn: Conn, tenant: int, ids: Iterable[uuid.UUID], **properties: Any) -> Batch:
    """One batch of track events with these identities."""
    return accept(
        conn, *(event(tenant, str(each), properties={"n": place} | properties) for place, each in enumerate(ids))
    )


def open_hours(conn: Conn) -> None:
    """This hour and the next one take events."""
    conn.execute(
        "SELECT queue.open_hour(date_trunc('hour', now(), 'UTC') + hours * interval '1 hour')"
        " FROM generate_series(0, 1) AS hours"
    )
