"""Funnel, audit and trace on rows that real commits and real workers wrote, and on rows that were tampered with."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import Audit, audit, audit_hour
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.account.trace import trace
from pipeline_platform.errors import NoSuchThingError
from pipeline_platform.event.types import (
    Lane,
    RejectedEvent,
    TenantId,
    event_id_of,
)
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]


class Platform:
    """The queue's front door and workers, without processes around them."""

    def __init__(self, conn: Conn, workers: Workers) -> None:
        self.conn = conn
        self.drain = workers.drain

    def tenant(self, name: str) -> TenantId:
        return add_tenant(self.conn, name).tenant_id

    def accept(self, tenant: TenantId, *message_ids: str, lane: Lane = Lane.LIVE, **fields: Any) -> None:
        accept(self.conn, *(event(tenant, message_id, **fields) for message_id in message_ids), lane=lane)

    def reject(self, tenant: TenantId, message_id: str) -> None:
        accept(self.conn, rejected=[RejectedEvent(tenant, message_id, "missing_field", "type is missing", b"{}")])

    def agreeing_audit(self) -> Audit:
        found = audit(self.conn)
        assert found.differences == []
        assert found.to_json()["agrees_with_funnel"] is True
        counted = funnel_of(self.conn)
        assert found.numbers == counted.numbers
        assert found.balanced and counted.balanced
        return found

    def kinds(self) -> set[str]:
        found = audit(self.conn)
        assert found.to_json()["agrees_with_funnel"] is False
        return {difference.kind for difference in found.differences}


@pytest.fixture
def platform(conn: Conn, workers: Workers) -> Platform:
    return Platform(conn, workers)


@pytest.fixture
def busy(platform: Platform) -> Platform:
    """Some of everything: two tenants, two lanes, twins, resends, rejects, dead letters, work in flight."""
    acme, zeta = platform.tenant("acme"), platform.tenant("zeta")
    platform.accept(acme, "a", "b", "b", "c")
    platform.accept(acme, "a", "d", lane=Lane.OVERFLOW)
    platform.accept(zeta, "a", "x")
    platform.accept(zeta, "bad-1", "bad-2", properties={"a": "\0"})
    platform.reject(acme, "r")
    platform.drain()
    platform.conn.execute("SELECT account.fold()")
    platform.accept(zeta, "x", "y", "y")
    return platform


def test_the_funnel_has_the_keys_it_promises(busy: Platform) -> None:
    found = json.loads(json.dumps(funnel_of(busy.conn).to_json(), default=str))
    assert {name: found[name] for name in ("received", "accepted", "rejected", "delivered", "duplicate")} == {
        "received": 14,
        "accepted": 13,
        "rejected": 1,
        "delivered": 6,
        "duplicate": 2,
    }
    assert (found["dead_lettered"], found["discarded"], found["in_flight"]) == (2, 0, 3)
    assert found["balanced"] is True
    assert [stage["stage"] for stage in found["stages"]] == [
        "received",
        "accepted",
        "claimed",
        "enriched",
        "delivered",
    ]
    assert [stage["arrived"] for stage in found["stages"]] == [14, 13, 10, 10, 6]
    assert [stage["failed"] for stage in found["stages"]] == [1, 0, 0, 2, 0]
    assert {part["tenant"]: part["accepted"] for part in found["tenants"]} == {"acme": 6, "zeta": 7}
    assert {part["lane"]: part["accepted"] for part in found["lanes"]} == {"live": 11, "overflow": 2}
    assert {(cause["failed_in"], cause["outcome"], cause["events"]) for cause in found["causes"]} == {
        ("validate", "rejected", 1),
        ("load", "dead_lettered", 2),
    }


def test_the_funnel_of_one_tenant_and_of_nothing(busy: Platform) -> None:
    assert funnel_of(busy.conn, tenant="acme").numbers.accepted == 6
    nothing = funnel_of(busy.conn, since=datetime.now(UTC) + timedelta(hours=2))
    assert nothing.numbers.received == 0
    assert nothing.balanced
    with pytest.raises(NoSuchThingError, match="tenant list"):
        funnel_of(busy.conn, tenant="nobody")


def test_one_group_out_of_balance_shows_though_the_sums_agree(busy: Platform) -> None:
    one, other = (
        f"INSERT INTO account.deltas (tenant_id, hour, lane, delivered) "
        f"SELECT tenant_id, date_trunc('hour', now(), 'UTC'), 'live', {by} FROM control.tenants WHERE name = '{name}'"
        for by, name in ((1, "acme"), (-1, "zeta"))
    )
    busy.conn.execute(one)  # pyright: ignore
    busy.conn.execute(other)  # pyright: ignore
    found = funnel_of(busy.conn)
    assert found.numbers.delivered == 6
    assert not found.balanced


def test_the_audit_agrees_with_untouched_rows(busy: Platform) -> None:
    found = busy.agreeing_audit()
    assert found.numbers.claimed == 10
    assert found.numbers.enriched == 10
    busy.drain()
    assert busy.agreeing_audit().numbers.in_flight == 0


def test_the_audit_agrees_after_a_discard_and_a_redelivery(busy: Platform) -> None:
    busy.conn.execute(
        "WITH gone AS (UPDATE queue.dead_letters SET state = 'discarded', resolved_at = now(), next_attempt_at = NULL,"
        " reason = 'test' WHERE message_id = 'bad-1' RETURNING *)"
        " INSERT INTO account.deltas (tenant_id, hour, lane, dead_lettered, discarded)"
        " SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, -1, 1 FROM gone"
    )
    assert busy.agreeing_audit().numbers.discarded == 1


@pytest.mark.parametrize(
    ("tampering", "kinds"),
    [
        ("DELETE FROM analytics.events WHERE message_id = 'c'", {"counter", "lost", "key_without_row", "production"}),
        (
            "DELETE FROM analytics.events WHERE message_id = 'c'; "
            f"DELETE FROM analytics.keys WHERE event_id = '{event_id_of('c')}'",
            {"counter", "lost", "production"},
        ),
        (f"DELETE FROM analytics.keys WHERE event_id = '{event_id_of('c')}'", {"row_without_key"}),
        (
            "INSERT INTO analytics.events SELECT (jsonb_populate_record(e, jsonb_build_object('event_id', "
            "gen_random_uuid(), 'batch_id', 999))).* FROM analytics.events AS e WHERE message_id = 'c'",
            {"extra", "production"},
        ),
        (
            "INSERT INTO analytics.events SELECT (jsonb_populate_record(e, jsonb_build_object('received_at', "
            "e.received_at + interval '1 microsecond'))).* FROM analytics.events AS e WHERE message_id = 'c'",
            {"doubled", "production"},
        ),
        ("UPDATE account.counters SET rejected = rejected + 1, accepted = accepted - 1", {"counter"}),
        ("DELETE FROM queue.work", {"counter", "lost"}),
        ("DELETE FROM queue.quarantine", {"counter"}),
        ("DELETE FROM queue.dead_letters WHERE message_id = 'bad-2'", {"counter", "lost"}),
        ("UPDATE queue.dead_letters SET event_index = 7 WHERE message_id = 'bad-2'", {"counter", "lost", "extra"}),
        (
            f"INSERT INTO analytics.keys SELECT 1, 1, '{uuid.UUID(int=7)}', now()",
            {"key_without_row"},
        ),
    ],
)
def test_the_audit_finds_what_was_tampered_with(busy: Platform, tampering: str, kinds: set[str]) -> None:
    busy.conn.execute("SELECT analytics.open_day((now() AT TIME ZONE 'UTC')::date + 1)")
    busy.conn.execute(tampering)  # pyright: ignore
    assert busy.kinds() == kinds


def test_a_lost_event_is_named(busy: Platform) -> None:
    busy.conn.execute("DELETE FROM analytics.events WHERE message_id = 'd'")
    lost = [difference for difference in audit(busy.conn).differences if difference.kind == "lost"]
    assert [(item.tenant, item.lane, item.events) for item in lost] == [("acme", "overflow", 1)]
    assert lost[0].samples[0]["event_id"] == str(event_id_of("d"))
    assert lost[0].samples[0]["event_index"] == 1


def test_a_duplicate_may_outlive_the_key_it_met(busy: Platform) -> None:
    """Keys go with their generation; the row that makes a resend a duplicate stays."""
    busy.drain()
    busy.conn.execute("SELECT analytics.rotate_keys('0', '72 hours')")
    busy.conn.execute("UPDATE queue.hours SET opened_at = now()")
    busy.conn.execute("SELECT analytics.rotate_keys('1 day', '0')")
    assert busy.conn.execute("SELECT count(*) FROM analytics.keys").fetchone() == (0,)
    assert busy.agreeing_audit().numbers.duplicate == 4


def test_rows_in_hours_that_never_were_are_extra(busy: Platform) -> None:
    day = datetime.now(UTC).date() + timedelta(days=3)
    busy.conn.execute("SELECT analytics.open_day(%s)", (day,))
    busy.conn.execute(
        "INSERT INTO analytics.events SELECT (jsonb_populate_record(e, jsonb_build_object('received_at', %s::date))).*"
        " FROM analytics.events AS e WHERE message_id = 'c'",
        (day,),
    )
    assert busy.kinds() == {"extra", "production", "doubled"}


def test_one_hour_can_be_audited_alone(busy: Platform) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    found = audit_hour(busy.conn, hour)
    assert found.agrees
    assert audit_hour(busy.conn, hour - timedelta(hours=1)).numbers.received in (0, 14 - found.numbers.received)


def test_dropped_hours_are_left_out_and_said_so(busy: Platform) -> None:
    busy.drain()
    hour = busy.conn.execute("SELECT min(hour) FROM account.funnel").fetchone()
    assert hour
    busy.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '80 hours' WHERE hour = %s", hour)
    busy.conn.execute("SELECT queue.drop_hour(%s, '72 hours')", hour)
    found = audit(busy.conn)
    assert found.excluded_hours == 1
    assert found.excluded_events > 0
    assert found.differences == []
    assert found.excluded_events + found.numbers.received == funnel_of(busy.conn).numbers.received


def test_trace_shows_every_acceptance_and_its_outcome(busy: Platform) -> None:
    found = trace(busy.conn, "a", event_id_of("a"))
    assert [(row["tenant"], row["lane"], row["outcome"]) for row in found.accepted] == [
        ("acme", "live", "delivered"),
        ("acme", "overflow", "duplicate"),
        ("zeta", "live", "delivered"),
    ]
    assert len(found.delivered) == 2
    assert len(trace(busy.conn, "a", event_id_of("a"), "zeta").accepted) == 1


@pytest.mark.parametrize(
    ("message_id", "outcomes"),
    [
        ("b", ["delivered", "duplicate"]),
        ("x", ["delivered", "in_flight"]),
        ("y", ["in_flight", "in_flight"]),
        ("bad-1", ["dead_lettered"]),
        ("never", []),
    ],
)
def test_trace_tells_the_outcomes(busy: Platform, message_id: str, outcomes: list[str]) -> None:
    found = trace(busy.conn, message_id, event_id_of(message_id))
    assert [row["outcome"] for row in found.accepted] == outcomes
    assert found.found == bool(outcomes)


@pytest.mark.parametrize(
    ("message_id", "stages"),
    [
        ("c", ["received", "delivered"]),
        ("b", ["received", "received", "delivered"]),
        ("y", ["received", "received"]),
        ("bad-1", ["received", "dead letter"]),
        ("r", ["rejected"]),
        ("never", []),
    ],
)
def test_trace_has_a_timeline_with_times(busy: Platform, message_id: str, stages: list[str]) -> None:
    timeline = trace(busy.conn, message_id, event_id_of(message_id)).timeline
    assert sorted(step["stage"] for step in timeline) == sorted(stages)
    assert [step["at"] for step in timeline] == sorted(step["at"] for step in timeline)
    assert all(step["seconds"] >= 0 for step in timeline)
    assert not timeline or timeline[0]["stage"] in ("received", "rejected")


def test_trace_names_the_trace_of_each_batch(busy: Platform) -> None:
    accepted = trace(busy.conn, "a", event_id_of("a")).accepted
    assert len({row["trace_id"] for row in accepted}) == len({row["batch_id"] for row in accepted}) > 1
    assert all(len(row["trace_id"]) == 32 and "batch_received_at" not in row for row in accepted)


def test_trace_shows_quarantine_dead_letters_and_losses(busy: Platform) -> None:
    assert [row["code"] for row in trace(busy.conn, "r", event_id_of("r")).quarantined] == ["missing_field"]
    letters = trace(busy.conn, "bad-1", event_id_of("bad-1")).dead_letters
    assert [(row["failed_in"], row["state"], row["attempts"]) for row in letters] == [("load", "waiting", 1)]
    busy.conn.execute("DELETE FROM analytics.events WHERE message_id = 'c'")
    assert [row["outcome"] for row in trace(busy.conn, "c", event_id_of("c")).accepted] == ["lost"]
    busy.conn.execute("DELETE FROM analytics.keys")
    assert trace(busy.conn, "d", event_id_of("d")).delivered != []
