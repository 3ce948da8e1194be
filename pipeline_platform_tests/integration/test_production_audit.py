"""The audit's own look at production: states that keys, funnel and batches say nothing of are planted, and named."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import Audit, audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.defs.events.account_check import check_hour
from pipeline_platform.queue.keeper import drop_old_hours, seal_due_hours
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.planting import plant
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]

_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
_COPY = """
INSERT INTO analytics.events
SELECT (jsonb_populate_record(e, jsonb_build_object('received_at', e.received_at + %s, 'batch_id', 999,
                                                    'delivered_at', e.delivered_at + %s))).*
FROM analytics.events AS e WHERE event_id IN (SELECT event_id FROM analytics.events ORDER BY event_id LIMIT 10)
"""


class World:
    """An hour of 50 delivered events that was dropped, and its keys with it."""

    def __init__(self, conn: Conn, settings: Settings) -> None:
        self.conn, self.settings = conn, settings
        self.tenant = add_tenant(conn, "acme").tenant_id
        plant(conn, self.tenant, _HOUR, 50)
        drain(settings)

    def drop(self) -> None:
        seal_due_hours(self.conn)
        self.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '99 hours' WHERE sealed_at IS NOT NULL")
        assert drop_old_hours(self.conn, timedelta(hours=72)) == {}
        self.conn.execute("TRUNCATE analytics.keys")

    def audit(self, **more: Any) -> Audit:
        found = audit(self.conn, **more)
        assert funnel_of(self.conn).balanced
        return found

    def named(self, **more: Any) -> list[tuple[str, int | None, int | None, int | None]]:
        return [(it.kind, it.counted, it.recounted, it.events) for it in self.audit(**more).differences]


@pytest.fixture
def world(conn: Conn, settings: Settings) -> Iterator[World]:
    yield World(conn, settings)


@pytest.fixture
def dropped(world: World) -> World:
    world.drop()
    assert world.named() == []
    return world


def test_rows_that_a_replay_deleted_are_named(dropped: World) -> None:
    dropped.conn.execute("DELETE FROM analytics.events")
    assert dropped.named(full=True) == [("production", 50, 0, None)]
    verdict = check_hour(dropped.conn, _HOUR)
    assert not verdict.passed and verdict.metadata["differences"].value == 1
    said = run_command(dropped.settings, "audit", "--full")
    assert said.code == 1 and '"kind": "production"' in said.out


def test_identities_that_an_undo_put_in_twice_are_named_though_the_counts_agree(dropped: World) -> None:
    """60 rows for 50 identities, and the account delivered 60: 10 were sent again and delivered in the next hour."""
    hour = timedelta(hours=1)
    dropped.conn.execute(_COPY, (hour, hour))
    dropped.conn.execute(
        "INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, claimed, enriched, delivered)"
        " VALUES (%s, %s, 'live', 10, 10, 10, 10, 10)",
        (dropped.tenant, _HOUR + hour),
    )
    dropped.conn.execute(
        "INSERT INTO queue.hours (hour, sealed_at, dropped_at) VALUES (%s, now(), now())", (_HOUR + hour,)
    )
    assert dropped.named(full=True) == [("doubled", None, None, 10)]


@pytest.mark.parametrize(("received", "named"), [(-10, 5), (50, 5), (73, 0)])
def test_an_identity_that_was_delivered_again_is_named_where_it_had_to_be_recognised(
    dropped: World, received: int, named: int
) -> None:
    """A dead letter, received `received` hours after the row was and delivered 200 hours later. What is received after
    the retention is a new event."""
    dropped.conn.execute("DELETE FROM analytics.events WHERE event_id NOT IN"
                         " (SELECT event_id FROM analytics.events ORDER BY event_id LIMIT 5)")  # fmt: skip
    at = _HOUR + timedelta(hours=received)
    dropped.conn.execute("SELECT analytics.open_day(%s)", (at.date(),))
    dropped.conn.execute(_COPY, (timedelta(hours=received), timedelta(hours=200)))
    # Delivered when it was received, but for the second rows.
    dropped.conn.execute("UPDATE analytics.events SET delivered_at = received_at WHERE batch_id <> 999")
    doubled = [each for each in dropped.named(full=True) if each[0] == "doubled"]
    assert doubled == ([("doubled", None, None, named)] if named else [])


def test_a_discarded_letter_that_was_delivered_is_named(dropped: World) -> None:
    dropped.conn.execute(
        "INSERT INTO account.deltas (tenant_id, hour, lane, delivered, discarded) VALUES (%s, %s, 'live', -1, 1)",
        (dropped.tenant, _HOUR),
    )
    assert dropped.named() == [("production", 49, 50, None)]


def test_rows_of_other_events_are_named_though_there_are_as_many(dropped: World) -> None:
    dropped.conn.execute("UPDATE analytics.events SET event_id = gen_random_uuid()"
                         " WHERE event_id = (SELECT min(event_id::text)::uuid FROM analytics.events)")  # fmt: skip
    assert dropped.named(full=True) == [("exchanged", 50, 50, None)]
    assert dropped.named() == [("exchanged", 50, 50, None)]


@pytest.mark.parametrize("change", ["type = 'identify'", "message_id = '00000000-0000-4000-8000-000000000000'"])
def test_a_row_that_is_not_the_event_that_was_accepted_is_named(world: World, change: str) -> None:
    assert world.named() == []
    world.conn.execute(f"UPDATE analytics.events SET {change}")  # pyright: ignore
    assert world.named() == [("altered", None, None, 50)]


def test_a_day_is_counted_again_when_postgresql_reports_a_change(dropped: World) -> None:
    dropped.conn.execute("SELECT pg_stat_force_next_flush()")
    wait_for("a day that nobody changes", lambda: dropped.audit().production.counted_days == 0)
    assert dropped.audit().production.rows == 50
    assert dropped.audit(full=True).production.counted_days == 1
    with psycopg.connect(dropped.settings.database_url, autocommit=True) as by_hand:
        by_hand.execute(
            "DELETE FROM analytics.events WHERE event_id IN (SELECT event_id FROM analytics.events LIMIT 1)"
        )
    wait_for("the change to be seen", lambda: dropped.named() == [("production", 50, 49, None)])


def test_a_day_whose_account_changed_is_counted_before_it_is_judged(dropped: World) -> None:
    """A dead letter is delivered: its row may be reported later than its account."""
    dropped.conn.execute("UPDATE account.production_hours SET production = 49")
    dropped.conn.execute("UPDATE account.production_days SET changes = account.changes_of_day(day)")
    assert dropped.named() == []
