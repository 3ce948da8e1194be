"""Past hours with events in them, as an import leaves them: batches, their work and their account."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pipeline_platform.event.types import TenantId
from pipeline_platform.queue.batches import batch_params
from pipeline_platform_tests.support.queue import event

Conn = psycopg.Connection[Any]

_BATCH = """
INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types, lengths,
                           envelope_of, envelopes, codec, payload)
VALUES (nextval('queue.batch_ids'), %s, 'live', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING batch_id
"""
_WORK = "INSERT INTO queue.work (lane, batch_id, received_at, end_event) VALUES ('live', %s, %s, %s)"
_DELTA = """
INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, rejected, in_flight)
VALUES (%s, %s, 'live', %s, %s, %s, %s)
"""
_QUARANTINE = """
INSERT INTO queue.quarantine (tenant_id, received_at, lane, code, message, payload)
VALUES (%s, %s, 'live', 'not_json', 'planted', '{')
"""


def past_hours(count: int) -> list[datetime]:
    """The last `count` hours that are over, the oldest first."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return [now - timedelta(hours=back) for back in range(count, 0, -1)]


def open_hour(conn: Conn, hour: datetime) -> None:
    conn.execute("SELECT queue.open_hour(%s), analytics.open_day(%s)", (hour, hour.date()))


def plant(conn: Conn, tenant: TenantId, hour: datetime, events: int = 3, *, rejected: int = 0, name: str = "e") -> None:
    """`events` accepted and `rejected` quarantined events of one tenant, a second into the hour."""
    at = hour + timedelta(seconds=1)
    accepted = [event(tenant, f"{name}-{hour.isoformat()}-{index}", client_at=at) for index in range(events)]
    open_hour(conn, hour)
    with conn.transaction():
        row = conn.execute(_BATCH, (at, events, *batch_params(accepted))).fetchone()
        assert row
        conn.execute(_WORK, (row[0], at, events))
        for _ in range(rejected):
            conn.execute(_QUARANTINE, (tenant, at))
        conn.execute(_DELTA, (tenant, hour, events + rejected, events, rejected, events))
