"""Dead letters as an operator handles them: by filter, audited, and the account holds."""

import uuid
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.dead_letters.operations import (
    Filter,
    count_open,
    discard,
    list_dead_letters,
    redrive,
    show_dead_letter,
)
from pipeline_platform.errors import NoSuchThingError
from pipeline_platform.event.types import QueuedEvent, TenantId
from pipeline_platform.settings import Settings
from pipeline_platform.worker.transform import Row
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import Workers, drain

Conn = psycopg.Connection[Any]
NUL = b'{"messageId":"m","event":"x","userId":"u","properties":{"a":"\\u0000"}}'


@pytest.fixture
def buried(conn: Conn, settings: Settings) -> TenantId:
    """A tenant with three dead letters: two of one cause, one of another."""
    tenant = add_tenant(conn).tenant_id
    accept(conn, *(event(tenant, payload=payload) for payload in (NUL, NUL, b"{")))
    drain(settings)
    return tenant


def outcome(conn: Conn) -> tuple[int, ...]:
    row = conn.execute(
        "SELECT sum(accepted), sum(delivered), sum(dead_lettered), sum(discarded), sum(in_flight) FROM account.funnel"
    ).fetchone()
    assert row
    return tuple(int(value) for value in row)


def test_lists_and_shows(conn: Conn, buried: TenantId) -> None:
    found = list_dead_letters(conn, Filter(tenants=["acme"]))
    assert [row["failed_in"] for row in found].count("load") == 2
    assert not list_dead_letters(conn, Filter(tenants=["nobody"]))
    shown = show_dead_letter(conn, next(row["dead_letter_id"] for row in found if row["message_id"]))
    assert shown["payload"] == NUL.decode()
    with pytest.raises(NoSuchThingError, match="no dead letter 99"):
        show_dead_letter(conn, 99)


def test_redrives_by_fingerprint_and_delivers_what_was_mended(conn: Conn, workers: Workers, buried: TenantId) -> None:
    (cause,) = [group for group in count_open(conn, Filter()) if group["events"] == 2]
    conn.execute("UPDATE queue.dead_letters SET payload = replace(encode(payload, 'escape'), 'u0000', 'u0041')::bytea")
    conn.execute("UPDATE queue.dead_letters SET state = 'exhausted', next_attempt_at = NULL")
    assert redrive(conn, Filter(fingerprint=cause["fingerprint"]), "fixed at the source") == 2
    workers.redeliver()
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


def test_ten_thousand_of_three_causes_are_redriven_by_one_command(
    conn: Conn, settings: Settings, workers: Workers
) -> None:
    causes = (KeyError("a"), TypeError("b"), ArithmeticError("c"))

    def failing(event: QueuedEvent) -> Row:
        raise causes[event.event_id.int % 3]

    tenant = add_tenant(conn).tenant_id
    for at in range(0, 10_000, 1_000):
        accept(conn, *(event(tenant, str(uuid.UUID(int=at + n))) for n in range(1_000)))
    workers.drain(failing)
    conn.execute("UPDATE queue.dead_letters SET state = 'exhausted', next_attempt_at = NULL")
    looked = run_command(settings, "dead-letters", "redrive", "--failed-in", "transform", "--dry-run", "--json").answer
    assert (looked["events"], len(looked["groups"])) == (10_000, 3)
    done = run_command(
        settings, "dead-letters", "redrive", "--failed-in", "transform", "--reason", "rolled back", "--json"
    )
    assert done.answer["events"] == 10_000
    while workers.redeliver().claimed:
        pass
    assert outcome(conn) == (10_000, 10_000, 0, 0, 0)
    assert conn.execute("SELECT state, count(*) FROM queue.dead_letters GROUP BY 1").fetchall() == [
        ("delivered", 10_000)
    ]
    assert not audit(conn).differences


def test_one_that_is_delivered_already_is_a_duplicate_and_the_bad_one_waits(
    conn: Conn, workers: Workers, buried: TenantId
) -> None:
    conn.execute("UPDATE queue.dead_letters SET payload = replace(encode(payload, 'escape'), 'u0000', 'u0041')::bytea")
    # Both letters of the first cause become one event.
    conn.execute("UPDATE queue.dead_letters SET event_id = (SELECT min(event_id::text)::uuid FROM queue.dead_letters"
                 " WHERE failed_in = 'load') WHERE failed_in = 'load'")  # fmt: skip
    redrive(conn, Filter(tenants=["acme"]), "x")
    workers.redeliver()
    states = conn.execute("SELECT state, count(*) FROM queue.dead_letters GROUP BY 1 ORDER BY 1").fetchall()
    assert states == [("delivered", 1), ("duplicate", 1), ("waiting", 1)]


def test_secrets_are_masked_unless_asked_for(conn: Conn, settings: Settings, buried: TenantId) -> None:
    secret = b'{"properties": {"apiKey": "k-1", "user_password":"p\\"w", "card_number": 4111, "plan": "pro"}'
    conn.execute("UPDATE queue.dead_letters SET payload = %s", (secret,))
    (first, *_) = list_dead_letters(conn, Filter())
    letter = str(first["dead_letter_id"])
    shown = run_command(settings, "dead-letters", "show", letter, "--json").answer["payload"]
    assert shown == '{"properties": {"apiKey": "***", "user_password":"***", "card_number": "***", "plan": "pro"}'
    assert (
        run_command(settings, "dead-letters", "show", letter, "--unmasked", "--json").answer["payload"]
        == secret.decode()
    )
