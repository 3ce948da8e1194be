"""Removes occurrences of events from the tables and records it in the account, in the caller's transaction.

The previous outcome decides the change: delivered, dead-lettered and in flight become discarded; a duplicate stays one.
The caller holds the erasure's lock, the hour, and all open work of every batch.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from pipeline_platform import arrays
from pipeline_platform.db import in_schema, queries
from pipeline_platform.erasure.person import Person

_SQL = queries("erasure")
_TABLES: dict[str, LiteralString] = {
    "analytics": in_schema(_SQL["delete_rows"], "analytics"),
    "shadow": in_schema(_SQL["delete_rows"], "shadow"),
}
_OPEN = ("waiting", "exhausted")

Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One accepted event by its position in the queue. index -1: a row whose batch is gone.

    sole: no event of another person in the same batch has this identity, so the row is this person's whatever it
    contains.
    """

    batch_id: int
    index: int
    event_id: UUID
    received_at: datetime
    batch_received_at: datetime
    lane: str
    sole: bool = True


def discard(
    conn: Conn, person: Person, erasure_id: int, found: Sequence[Occurrence], in_flight: Collection[int] = ()
) -> Counter[str]:
    """Erase the outcomes of these occurrences. in_flight: indexes of those that no worker has processed yet.

    Returns the number of changed rows by table.
    """
    if not found:
        return Counter()
    base = person.params() | {"erasure_id": erasure_id}
    places = base | {
        "batch_ids": arrays.int8s([one.batch_id for one in found]),
        "indexes": arrays.int4s([one.index for one in found]),
    }
    letters, changed = _empty_letters(conn, places)
    known = set(conn.execute(_SQL["already_erased"], places).fetchall())
    rows: Counter[tuple[int, UUID]] = Counter()
    for table, statement in _TABLES.items():
        deleted = conn.execute(
            statement,
            places
            | {
                "event_ids": arrays.uuids([one.event_id for one in found]),
                "received_ats": arrays.timestamps([one.received_at for one in found]),
                "sole": arrays.bools([one.sole for one in found]),
            },
        ).fetchall()
        changed[table] += len(set(deleted))
        rows.update(set(deleted))
    fresh = [one for one in found if (one.batch_id, one.index, one.event_id) not in known]
    _account(conn, base, [(one, _was(one, letters, rows, in_flight)) for one in fresh])
    return changed


def _empty_letters(conn: Conn, places: dict[str, Any]) -> tuple[dict[tuple[int, int], str], Counter[str]]:
    """Lock the dead letters first: a redelivery may be resolving one, and the next statements must see its row."""
    found = conn.execute(_SQL["hold_letters"], places).fetchall()
    if found:
        conn.execute(_SQL["empty_letters"], places)
        fingerprints = sorted({fingerprint for *_, fingerprint in found})
        conn.execute(_SQL["blank_alerts"], places | {"fingerprints": fingerprints})
    return {(batch, index): state for batch, index, state, *_ in found}, Counter(dead_letters=len(found))


def _was(
    one: Occurrence,
    letters: dict[tuple[int, int], str],
    rows: Counter[tuple[int, UUID]],
    in_flight: Collection[int],
) -> str:
    state = letters.get((one.batch_id, one.index))
    if one.index in in_flight:
        return "in_flight"
    if state in _OPEN:
        return "dead_lettered"
    if state in ("discarded", "duplicate"):
        return state
    # If one batch holds an identity twice, it is not known which one was delivered: take the first.
    if rows[one.batch_id, one.event_id] > 0:
        rows[one.batch_id, one.event_id] -= 1
        return "delivered"
    return "duplicate"


def _account(conn: Conn, base: dict[str, Any], judged: Sequence[tuple[Occurrence, str]]) -> None:
    if not judged:
        return
    never_delivered = [one for one, was in judged if was in ("dead_lettered", "in_flight", "discarded")]
    conn.execute(
        _SQL["note_erased"],
        base
        | {
            "batch_ids": arrays.int8s([one.batch_id for one, _ in judged]),
            "indexes": arrays.int4s([one.index for one, _ in judged]),
            "event_ids": arrays.uuids([one.event_id for one, _ in judged]),
            "batch_received_ats": arrays.timestamps([one.batch_received_at for one, _ in judged]),
            "was": [was for _, was in judged],
        },
    )
    conn.execute(
        _SQL["count_erased"],
        base
        | {
            "batch_received_ats": arrays.timestamps([one.batch_received_at for one, _ in judged]),
            "lanes": [one.lane for one, _ in judged],
            "was": [was for _, was in judged],
        },
    )
    if never_delivered:
        conn.execute(
            _SQL["keep_identities"],
            base
            | {
                "event_ids": arrays.uuids([one.event_id for one in never_delivered]),
                "received_ats": arrays.timestamps([one.received_at for one in never_delivered]),
            },
        )
