"""An identity is known for as long as anything can still bring it to production."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.archive.hours import archive_hours, restore
from pipeline_platform.db import connect
from pipeline_platform.dead_letters.readmit import Quarantined, readmit
from pipeline_platform.event.types import (
    RejectedEvent,
    TenantId,
)
from pipeline_platform.queue.keeper import drop_old_hours, seal_due_hours
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform_tests.support.planting import plant
from pipeline_platform_tests.support.queue import accept, event, open_hours
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]

_RETENTION = timedelta(hours=72)
_THIS_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
_PAST = _THIS_HOUR - timedelta(hours=1)


class World:
    """A queue, workers, and a way to let time pass."""

    def __init__(self, conn: Conn, workers: Workers, tenant: TenantId) -> None:
        self.conn, self.workers, self.tenant = conn, workers, tenant
        self.settings = workers.settings
        self.drain = workers.drain

    def rotate(self) -> None:
        """The open generation is closed, as if it was long ago; whatever may be dropped is dropped."""
        self.conn.execute("SELECT analytics.rotate_keys('0', %s)", (_RETENTION,))
        self.conn.execute(
            "UPDATE analytics.key_generations SET opened_at = opened_at - interval '200 hours',"
            " closed_at = closed_at - interval '100 hours'"
        )
        self.conn.execute("UPDATE analytics.key_generations SET opened_at = now() WHERE closed_at IS NULL")
        self.conn.execute("UPDATE queue.hours SET opened_at = opened_at - interval '100 hours'")
        for _ in range(3):
            self.conn.execute("SELECT analytics.rotate_keys('1 day', %s)", (_RETENTION,))

    def pass_hours(self) -> None:
        """Hours end and are dropped; those under way begin after all that was closed."""
        self.conn.execute("UPDATE queue.hours SET opened_at = now() WHERE hour >= %s", (_THIS_HOUR,))
        self.conn.execute(
            "UPDATE queue.hours SET sealed_at = now() - interval '99 hours' WHERE hour < %s", (_THIS_HOUR,)
        )
        assert drop_old_hours(self.conn, _RETENTION) == {}

    def forget(self) -> None:
        """Long after: the hours are dropped, and so are the generations of keys."""
        self.rotate()
        self.pass_hours()
        for _ in range(3):
            self.conn.execute("SELECT analytics.rotate_keys('1 day', %s)", (_RETENTION,))
        assert self.conn.execute("SELECT count(*) FROM analytics.key_generations").fetchone() == (1,)

    def why(self) -> str | None:
        row = self.conn.execute(
            "SELECT analytics.why_generation_kept(min(generation), %s) FROM analytics.key_generations", (_RETENTION,)
        ).fetchone()
        assert row
        return row[0]

    def rows(self) -> tuple[int, int]:
        row = self.conn.execute("SELECT count(*), count(DISTINCT event_id) FROM analytics.events").fetchone()
        assert row
        return row

    def replay(self, hour: datetime) -> dict[str, Any]:
        replay_id = make_plan(self.conn, Scope(hour, hour + timedelta(hours=1)), "a test").replay_id
        for start in (steps.start_diff, steps.start_commit):
            start(self.conn, replay_id)
            self.workers.replay()
        return report.diff(self.conn, replay_id)


@pytest.fixture
def world(conn: Conn, workers: Workers) -> World:
    open_hours(conn)
    return World(conn, workers, add_tenant(conn).tenant_id)


def _again(world: World, hour: datetime, into: datetime) -> None:
    """The events of an hour are accepted once more in another one."""
    world.conn.execute("SELECT queue.open_hour(%s)", (into,))
    world.conn.execute(
        "INSERT INTO queue.batches SELECT (jsonb_populate_record(b, jsonb_build_object('received_at',"
        " b.received_at + (%(into)s - %(hour)s::timestamptz), 'batch_id', nextval('queue.batch_ids')))).*"
        " FROM queue.batches AS b WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'",
        {"hour": hour, "into": into},
    )
    world.conn.execute(
        "WITH work AS (INSERT INTO queue.work (lane, batch_id, received_at, end_event)"
        " SELECT lane, batch_id, received_at, events FROM queue.batches WHERE received_at >= %(into)s"
        " AND received_at < %(into)s + interval '1 hour' RETURNING *)"
        " INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, in_flight)"
        " SELECT %(tenant)s, %(into)s, lane, end_event, end_event, end_event FROM work",
        {"into": into, "tenant": world.tenant},
    )


def test_a_letter_whose_resend_was_delivered_stays_known(world: World) -> None:
    names = [f"e-{n}" for n in range(5)]
    accept(world.conn, *(event(world.tenant, name, payload=b"{") for name in names))
    world.drain()
    world.conn.execute("UPDATE queue.dead_letters SET state = 'exhausted', next_attempt_at = NULL")
    accept(world.conn, *(event(world.tenant, name) for name in names))
    world.drain()
    world.forget()
    world.conn.execute(
        "UPDATE queue.dead_letters SET state = 'waiting', next_attempt_at = now(),"
        " payload = convert_to(jsonb_build_object('messageId', 'm', 'event', 'x')::text, 'UTF8')"
    )
    assert world.workers.redeliver().duplicate == 5
    assert world.rows() == (5, 5)


def test_letters_are_carried_in_portions(world: World) -> None:
    accept(world.conn, *(event(world.tenant, f"e-{n}", payload=b"{") for n in range(5)))
    world.drain()
    accept(world.conn, *(event(world.tenant, f"e-{n}") for n in range(5)))
    world.drain()
    world.conn.execute("SELECT analytics.rotate_keys('0', %s)", (_RETENTION,))
    carried = [world.conn.execute("SELECT analytics.carry_keys(1, 2)").fetchone() for _ in range(3)]
    assert carried == [(False,), (False,), (True,)]
    assert world.conn.execute("SELECT count(*) FROM analytics.keys WHERE generation = 2").fetchone() == (5,)


def test_an_hour_that_is_kept_keeps_its_keys_and_its_replay_adds_nothing(world: World) -> None:
    plant(world.conn, world.tenant, _PAST, 20)
    plant(world.conn, world.tenant, _PAST, 20)
    world.drain()
    world.rotate()
    assert "is needed by 3 kept hours" in (world.why() or "")
    seal_due_hours(world.conn)
    done = world.replay(_PAST)
    assert done["totals"]["added"] == 0 and world.rows() == (20, 20)
    assert not audit(world.conn).differences
    world.forget()


def test_work_that_waits_keeps_the_keys_it_will_be_compared_with(world: World) -> None:
    accept(world.conn, event(world.tenant, "a"))
    world.drain()
    accept(world.conn, event(world.tenant, "a"))
    world.conn.execute("UPDATE queue.hours SET opened_at = now()")
    # Accepted an hour before the generation could have been dropped.
    world.conn.execute("SELECT analytics.rotate_keys('0', %s)", (_RETENTION,))
    world.conn.execute(
        "UPDATE analytics.key_generations SET closed_at = now() - interval '72 hours' WHERE generation = 1"
    )
    world.conn.execute("UPDATE queue.work SET received_at = received_at - interval '1 hour'")
    world.conn.execute("UPDATE queue.hours SET opened_at = now()")
    assert "is needed by 1 pieces of work" in (world.why() or "")
    world.conn.execute("UPDATE queue.work SET received_at = received_at + interval '1 hour'")
    world.drain()
    assert world.why() is None and world.rows() == (1, 1)


def test_a_duplicate_keeps_its_identity_known_for_longer(world: World) -> None:
    for _ in range(4):
        accept(world.conn, event(world.tenant, "a"), event(world.tenant, "a"))
        world.drain()
        assert not audit(world.conn).differences
        world.conn.execute("SELECT analytics.rotate_keys('0', %s)", (_RETENTION,))
    keys = "SELECT count(*), count(DISTINCT generation), count(DISTINCT received_at) FROM analytics.keys"
    assert world.conn.execute(keys).fetchone() == (4, 4, 1)
    world.pass_hours()
    world.conn.execute(
        "UPDATE analytics.key_generations SET closed_at = closed_at - interval '100 hours' WHERE generation < 4"
    )
    for _ in range(4):
        world.conn.execute("SELECT analytics.rotate_keys('1 day', %s)", (_RETENTION,))
    assert world.conn.execute(keys).fetchone() == (1, 1, 1)
    accept(world.conn, event(world.tenant, "a"))
    world.drain()
    assert world.rows() == (1, 1)


def test_a_generation_goes_when_nothing_needs_it(world: World) -> None:
    accept(world.conn, event(world.tenant, "a"))
    world.drain()
    assert world.why() == "is open"
    world.conn.execute("SELECT analytics.rotate_keys('0', %s)", (_RETENTION,))
    assert world.why() == "was not closed 3 days ago"
    world.forget()


def test_a_restored_hour_is_recognised_wherever_its_rows_are(world: World, tmp_path: Path) -> None:
    """Its duplicates are of events that were delivered ten days before."""
    early = _THIS_HOUR - timedelta(days=10)
    plant(world.conn, world.tenant, early, 20)
    _again(world, early, _PAST)
    plant(world.conn, world.tenant, _PAST, 3)
    _again(world, _PAST, _PAST)
    while world.conn.execute("SELECT count(*) FROM queue.work").fetchone() != (0,):
        world.drain()
    seal_due_hours(world.conn)
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '99 hours' WHERE sealed_at IS NOT NULL")
    settings = world.settings.model_copy(update={"archive_url": str(tmp_path)})
    with connect(settings.database_url, "archive", statement_timeout_s=0) as conn:
        assert [one.error for one in archive_hours(conn, settings, [early, _PAST])] == [None, None]
        world.forget()
        assert world.conn.execute("SELECT count(*) FROM analytics.keys").fetchone() == (0,)
        restore(conn, _PAST, "a test")
    done = world.replay(_PAST)
    assert done["totals"]["added"] == 0 and world.rows() == (23, 23)


def test_a_rejected_event_that_was_sent_again_is_let_in_as_a_duplicate(world: World) -> None:
    good = json.dumps({"messageId": "a", "type": "track", "userId": "u1", "event": "Clicked"}).encode()
    rejected = RejectedEvent(world.tenant, "a", "missing_field", "type is missing", b"{}")
    accept(world.conn, rejected=[rejected])
    accept(world.conn, event(world.tenant, "a"))
    world.drain()
    world.forget()
    assert world.conn.execute("SELECT count(*) FROM analytics.keys").fetchone() == (0,)
    done = readmit(world.conn, world.settings, Quarantined(), lambda _: good, "sender fixed", dry_run=False)
    assert done.accepted == 1
    world.drain()
    assert world.rows() == (1, 1)
    assert not audit(world.conn).differences
