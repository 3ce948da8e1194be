"""Which events are of people who were erased: asked by whatever brings in events that were received before.

A tombstone is a hash of an id and the time of the erasure. What was received before that time stays out.
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
    """Places of the events of people who were erased after those were received.

    Ask in the transaction that accepts the events: an erasure that begins later waits for its end.
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
        return Ids()  # no event: its reader rejects it
