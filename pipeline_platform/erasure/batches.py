"""Empties events in the queue: the batch is rewritten, and an erased event keeps its position without its bytes.

Positions, identities and times stay. So the account can still be recounted, and work still points to the right range of
the batch. The envelope is removed as well, unless another event of the batch uses it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg

from pipeline_platform import arrays
from pipeline_platform.archive.hours import as_accepted
from pipeline_platform.db import queries
from pipeline_platform.erasure.outcomes import Occurrence, discard
from pipeline_platform.erasure.person import Person, ids_of
from pipeline_platform.erasure.scan import Place, read_batches
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.queue.batches import Work, batch_params, read

_SQL = queries("erasure")

Conn = psycopg.Connection[Any]


def theirs(events: Iterable[QueuedEvent], person: Person, rows: Collection[UUID] = ()) -> list[QueuedEvent]:
    """The person's events: by their bytes or, if those do not tell, because the delivered row is the person's."""
    own = [event for event in events if event.tenant_id == person.tenant_id]
    by_bytes = {
        event.event_index: event.event_id
        for event in own
        if event.payload and person.has(ids_of(event.payload, person.users))
    }
    by_row = set(rows) - set(by_bytes.values())
    return [event for event in own if event.event_index in by_bytes or event.event_id in by_row]


def is_readable(work: Work, events: Iterable[QueuedEvent]) -> bool:
    """False if the bytes of a batch are damaged: `read` then finds no event."""
    return any(event.payload for event in events) or not any(arrays.read_int4s(work.batch.lengths))


def occurrences(chosen: Collection[QueuedEvent], events: Iterable[QueuedEvent]) -> list[Occurrence]:
    """The occurrences of the chosen events. `events`: all events of the same batches."""
    places = {(event.batch_id, event.event_index) for event in chosen}
    others = {
        (event.batch_id, event.event_id, event.tenant_id)
        for event in events
        if event.payload and (event.batch_id, event.event_index) not in places
    }
    return [
        Occurrence(
            event.batch_id,
            event.event_index,
            event.event_id,
            event.received_at,
            event.batch_received_at,
            event.lane.value,
            (event.batch_id, event.event_id, event.tenant_id) not in others,
        )
        for event in chosen
    ]


def emptied(events: Iterable[QueuedEvent], chosen: Iterable[QueuedEvent]) -> Iterator[QueuedEvent]:
    """All events, the chosen ones without their bytes and envelopes."""
    places = {(event.batch_id, event.event_index) for event in chosen}
    for event in events:
        is_chosen = (event.batch_id, event.event_index) in places
        yield replace(event, payload=b"", envelope=b"") if is_chosen else event


def erase_batch(conn: Conn, person: Person, erasure_id: int, place: Place, rows: Collection[UUID] = ()) -> Counter[str]:
    """Erase a person's events, and their outcomes, from one kept batch in one transaction.

    rows: identities whose delivered row is the person's. Returns the number of changed rows by table.
    """
    at = {"batch_id": place[0], "received_at": place[1]}
    with conn.transaction():
        conn.execute(_SQL["enter"])
        conn.execute(_SQL["hold_hour"], at)
        work = _hold_work(conn, at)
        for batch in read_batches(conn, [place]):
            events = read(batch)
            chosen = theirs(events, person, rows)
            if not chosen:
                continue
            in_flight = {index for _, first, end in work for index in range(first, end)}
            changed = discard(conn, person, erasure_id, occurrences(chosen, events), in_flight)
            if is_readable(batch, events):
                _empty(conn, at, list(emptied(events, chosen)))
            conn.execute(_SQL["renew_work"], at)
            return changed + Counter(queue=len(chosen))
    return Counter()


def _empty(conn: Conn, at: dict[str, Any], events: list[QueuedEvent]) -> None:
    (*_, lengths, envelope_of, envelopes, codec, payload) = batch_params(as_accepted(events))
    changes = {"lengths": lengths, "envelope_of": envelope_of, "envelopes": envelopes, "codec": codec}
    conn.execute(_SQL["empty_batch"], at | changes | {"payload": payload})


def _hold_work(conn: Conn, at: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Lock all work of a batch. Repeats until no new rows appear: a worker may split work while this waits."""
    held: list[tuple[Any, ...]] | None = None
    while (found := conn.execute(_SQL["hold_work"], at).fetchall()) != held:
        held = found
    return found
