"""Dead letters as an operator handles them: by filter, audited, and the account holds."""

import uuid
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import queries
from pipeline_platform.errors import NoSuchThingError
from pipeline_platform.event import AcceptedEvent, EventType, Lane, TenantId
from pipeline_platform.lookups import Lookups
from pipeline_platform.operate.dead_letters import (
    Filter,
    count_open,
    discard,
    list_dead_letters,
    redrive,
    show_dead_letter,
)
from pipeline_platform.queue.batches import accept_params, claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine
from pipeline_platform.worker.redelivery import redeliver

Conn = psycopg.Connection[Any]
NUL = b'{"messageId":"m","event":"x","userId":"u","properties":{"a":"\\u0000"}}'


@pytest.fixture
def buried(conn: Conn, settings: Settings) -> TenantId:
    """A tenant with three dead letters: two of one cause, one of another."""
    row = conn.execute("INSERT INTO control.tenants (name) VALUES ('acme') RETURNING tenant_id").fetchone()
    assert row
    tenant = TenantId(row[0])
    payloads = [NUL, NUL, b"{"]
    events = [AcceptedEvent(tenant, uuid.uuid4(), EventType.TRACK, None, payload) for payload in payloads]
    conn.execute(queries("queue")["accept"], accept_params(Lane.LIVE, events, []))
    lookups = Lookups(settings, settings.redis_url)
    Engine(settings, conn, lookups).step(lambda own: claim(own, Lane.LIVE, 10, 0))
    lookups.close()
    return tenant


def outcome(conn: Conn) -> tuple[int, ...]:
    row = conn.execute(
        "SELECT sum(accepted), sum(delivered), sum(dead_lettered), sum(discarded), sum(in_flight) FROM account.funnel"
    ).fetchone()
    assert row
    return tuple(int(value) for value in row)


def test_lists_and_shows(conn: Conn, buried: TenantId) -> None:
    found = list_dead_letters(conn, Filter(tenant="acme"))
    assert [row["stage"] for row in found].count("load") == 2
    assert not list_dead_letters(conn, Filter(tenant="nobody"))
    shown = show_dead_letter(conn, next(row["dead_letter_id"] for row in found if row["message_id"]))
    assert shown["payload"] == NUL.decode()
    with pytest.raises(NoSuchThingError, match="no dead letter 99"):
        show_dead_letter(conn, 99)


def test_redrives_by_fingerprint_and_delivers_what_was_mended(conn: Conn, settings: Settings, buried: TenantId) -> None:
    (cause,) = [group for group in count_open(conn, Filter()) if group["events"] == 2]
    conn.execute("UPDATE queue.dead_letters SET payload = replace(encode(payload, 'escape'), 'u0000', 'u0041')::bytea")
    conn.execute("UPDATE queue.dead_letters SET state = 'exhausted', next_attempt_at = NULL")
    assert redrive(conn, Filter(fingerprint=cause["fingerprint"]), "fixed at the source") == 2
    lookups = Lookups(settings, settings.redis_url)
    redeliver(settings, conn, lookups)
    lookups.close()
    assert outcome(conn) == (3, 2, 1, 0, 0)
    assert conn.execute("SELECT action, detail->>'events' FROM control.audit_log").fetchall() == [
        ("dead-letters redrive", "2")
    ]


def test_discards_only_what_was_named(conn: Conn, buried: TenantId) -> None:
    first = list_dead_letters(conn, Filter())[0]
    assert discard(conn, Filter(ids=[first["dead_letter_id"]]), "test data of ours") == 1
    assert outcome(conn) == (3, 0, 2, 1, 0)
    assert discard(conn, Filter(ids=[first["dead_letter_id"]]), "again") == 0
    assert outcome(conn) == (3, 0, 2, 1, 0)
