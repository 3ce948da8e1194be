"""Finds events of erased persons. Everything that brings in events received earlier calls it.

A tombstone is a hash of an id and the time of the erasure. Events received before that time are left out.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.event.person_ids import Ids, read_ids

_SQL = queries("tombstones")


def erased_places(
    conn: psycopg.Connection[Any],
    tenant_ids: Sequence[int],
    payloads: Sequence[bytes],
    received_ats: Sequence[datetime],
) -> set[int]:
    """Positions of events that were received before their person was erased.

    Call it in the transaction that accepts the events: an erasure that begins later waits for it to end.
    """
    if conn.execute(_SQL["any_erased"], (list(set(tenant_ids)),)).fetchone() == (False,):
        return set()
    ids = [_ids(payload) for payload in payloads]
    params = {
        "tenant_ids": list(tenant_ids),
        "user_ids": [one.user_id for one in ids],
        "anonymous_ids": [one.anonymous_id for one in ids],
        "previous_ids": [one.previous_id for one in ids],
        "received_ats": list(received_ats),
    }
    return {row[0] for row in conn.execute(_SQL["erased"], params)}


def _ids(payload: bytes) -> Ids:
    try:
        return read_ids(payload)
    except ValueError:
        return Ids()  # not an event: the reader rejects it
