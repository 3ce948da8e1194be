"""What is decided of an event beside a replay, at every place: the later decision holds and the account is exact."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.db import connect, queries
from pipeline_platform.dead_letters.operations import Filter, discard, redrive
from pipeline_platform.dead_letters.readmit import Quarantined, readmit
from pipeline_platform.erasure.erase import erase
from pipeline_platform.event.types import (
    AcceptedEvent,
    RejectedEvent,
    event_id_of,
)
from pipeline_platform.migration.recovery.dropped import Window
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.queue.keeper import drop_old_hours
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import open_epoch, settle
from pipeline_platform_tests.support.queue import accept, event, open_hours
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.transforms import bad_deploy
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]
# The event whose fate is asked for; a bad deploy made a dead letter of it.
_SUBJECT = "subject"


class World:
    """A tenant with dead letters of a bad deploy, workers, and one replay at a time."""

    def __init__(self, conn: Conn, workers: Workers) -> None:
        self.conn, self.settings = conn, workers.settings
        self.drain, self.work, self.redeliver = workers.drain, workers.replay, workers.redeliver
        self.tenant = add_tenant(conn).tenant_id
        self.replay_id = 0

    def event(self, message_id: str) -> AcceptedEvent:
        return event(self.tenant, message_id, userId=f"u-{message_id}")

    def accept(self, *message_ids: str) -> None:
        accept(self.conn, *map(self.event, message_ids))

    def quarantine(self, message_id: str) -> None:
        rejected = RejectedEvent(self.tenant, message_id, "missing_field", "broken", self.event(message_id).payload)
        accept(self.conn, rejected=[rejected])

    def bury(self, *message_ids: str) -> None:
        """Accept events, and let a bad deploy make dead letters of them."""
        self.accept(*message_ids)
        self.drain(bad_deploy)

    def diff(self) -> None:
        now = datetime.now(UTC)
        self.replay_id = make_plan(self.conn, Scope(now - timedelta(hours=1), now), "a test").replay_id
        steps.start_diff(self.conn, self.replay_id)
        self.work()

    def commit(self) -> None:
        steps.start_commit(self.conn, self.replay_id)
        self.work()

    def undo(self) -> dict[str, int]:
        steps.start_undo(self.conn, self.replay_id, "a test")
        self.work()
        found = report.show(self.conn, self.replay_id)
        assert found["state"] == "undone"
        return found["undo"]

    def fate(self, message_id: str = _SUBJECT) -> tuple[str, int]:
        """The state of the event's dead letter, and its rows in production and shadow."""
        row = self.conn.execute(
            "SELECT (SELECT state FROM queue.dead_letters WHERE event_id = %(id)s ORDER BY dead_letter_id LIMIT 1),"
            " (SELECT count(*) FROM account.delivered WHERE event_id = %(id)s)",
            {"id": event_id_of(message_id)},
        ).fetchone()
        assert row
        return row

    def is_exact(self) -> None:
        """The account balances, a recount agrees, and no identity has two rows."""
        found, counted = audit(self.conn), funnel_of(self.conn)
        assert found.differences == []
        assert found.numbers == counted.numbers
        assert found.balanced and counted.balanced
        doubled = self.conn.execute("SELECT event_id FROM account.delivered GROUP BY 1 HAVING count(*) > 1").fetchall()
        assert doubled == []


@pytest.fixture
def world(conn: Conn, workers: Workers) -> World:
    open_hours(conn)
    return World(conn, workers)


def _letter(world: World) -> Filter:
    [(letter,)] = world.conn.execute(
        "SELECT dead_letter_id FROM queue.dead_letters WHERE event_id = %s", (event_id_of(_SUBJECT),)
    ).fetchall()
    return Filter(ids=[letter])


def _discard(world: World) -> None:
    discard(world.conn, _letter(world), "a test")


def _erase(world: World) -> None:
    erase(world.settings, "acme", f"u-{_SUBJECT}", "request 1")


def _redrive(world: World) -> None:
    redrive(world.conn, _letter(world), "a test")
    world.redeliver()


def _readmit(world: World) -> None:
    world.quarantine(_SUBJECT)
    readmit(world.conn, world.settings, Quarantined(), lambda payload: payload, "a test", dry_run=False)
    world.drain()


def _recover(world: World) -> None:
    settle(world.conn)
    now = datetime.now(UTC)
    recover(world.conn, Window(now - timedelta(hours=2), now), reason="a test")


def _cut_over(world: World) -> None:
    open_epoch(world.conn, "platform_primary")


Step = Callable[[World], Any]
_DIFF: Step = World.diff
_COMMIT: Step = World.commit
_UNDO: Step = World.undo
# By where the decision falls: the dead letter's state and the number of rows at the end.
_FATES: list[tuple[Step, list[tuple[str, int]]]] = [
    # before the diff, before the commit, before the undo, after the undo
    (_discard, [("discarded", 0), ("discarded", 0), ("exhausted", 0), ("discarded", 0)]),
    (_erase, [("discarded", 0), ("discarded", 0), ("delivered", 0), ("discarded", 0)]),
    (_redrive, [("delivered", 1), ("delivered", 1), ("exhausted", 0), ("delivered", 1)]),
    # What was let in anew is delivered, or counts as a duplicate of the row that then stays.
    (_readmit, [("waiting", 1), ("waiting", 1), ("delivered", 1), ("exhausted", 1)]),
    (_recover, [("delivered", 1), ("delivered", 1), ("delivered", 1), ("exhausted", 0)]),
    (_cut_over, [("delivered", 1), ("delivered", 1), ("exhausted", 0), ("exhausted", 0)]),
]
_PLACES: list[Callable[[Step], list[Step]]] = [
    lambda decide: [decide, _DIFF, _COMMIT],
    lambda decide: [_DIFF, decide, _COMMIT],
    lambda decide: [_DIFF, _COMMIT, decide, _UNDO],
    lambda decide: [_DIFF, _COMMIT, _UNDO, decide],
]


@pytest.mark.parametrize("place", range(4), ids=["before_diff", "before_commit", "before_undo", "after_undo"])
@pytest.mark.parametrize(("decide", "fates"), _FATES, ids=[step.__name__.strip("_") for step, _ in _FATES])
def test_the_later_decision_holds(world: World, decide: Step, fates: list[tuple[str, int]], place: int) -> None:
    if decide in (_recover, _cut_over):
        open_epoch(world.conn, "shadow")
        # Recovery has more to do than the replay's event.
        world.accept("shadowed")
        world.drain()
    world.bury(_SUBJECT, "other")
    for step in _PLACES[place](decide):
        step(world)
    assert world.fate() == fates[place]
    world.is_exact()


def test_what_a_retry_delivered_and_a_recovery_moved_is_not_added(world: World) -> None:
    open_epoch(world.conn, "shadow")
    world.bury(_SUBJECT)
    world.diff()
    _redrive(world)
    _recover(world)
    world.commit()
    assert world.fate() == ("delivered", 1)
    world.is_exact()


def test_an_undo_waits_briefly_for_identity_keys_that_are_in_use(world: World, settings: Settings) -> None:
    world.bury(_SUBJECT)
    world.diff()
    world.commit()
    steps.start_undo(world.conn, world.replay_id, "a test")
    with connect(settings.database_url, "test restore") as other, other.transaction():
        other.execute(queries("worker")["enter_keys"])
        world.work()
        assert report.show(world.conn, world.replay_id)["state"] == "undoing"
    world.work()
    assert report.show(world.conn, world.replay_id)["state"] == "undone"
    assert world.fate() == ("exhausted", 0)
    world.is_exact()


def test_an_undo_keeps_a_row_if_a_later_batch_is_gone(conn: Conn, world: World, settings: Settings) -> None:
    world.bury(_SUBJECT)
    world.diff()
    world.commit()
    world.accept(_SUBJECT)
    world.drain()
    conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '80 hours'")
    assert drop_old_hours(conn, settings.retention) == {}
    assert world.undo() == {"restored": 0, "kept_newer": 1, "left_alone": 0}
    assert world.fate() == ("delivered", 1)


def test_a_commit_waits_for_a_discard_under_way(conn: Conn, world: World, settings: Settings) -> None:
    world.bury(_SUBJECT, "other")
    world.diff()
    steps.start_commit(conn, world.replay_id)
    with connect(settings.database_url, "test operator") as other:
        with other.transaction():
            discard(other, _letter(world), "a test")
            committing = threading.Thread(target=world.work)
            committing.start()
            waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()" \
                    " AND application_name LIKE '%test worker' AND wait_event_type = 'Lock')"  # fmt: skip
            wait_for("the commit to wait", lambda: conn.execute(waits).fetchone() == (True,), 30)
        committing.join(30)
    assert world.fate() == ("discarded", 0) and world.fate("other") == ("delivered", 1)
    world.is_exact()


def _lose_keys(conn: Conn) -> None:
    """Two generations later, as after days."""
    conn.execute("TRUNCATE analytics.keys")
    conn.execute("UPDATE analytics.key_generations SET opened_at = clock_timestamp()")


def test_nothing_is_added_once_keys_since_the_diff_are_gone(conn: Conn, world: World) -> None:
    world.bury(_SUBJECT)
    world.diff()
    world.accept(_SUBJECT)
    world.drain()
    _lose_keys(conn)
    world.commit()
    assert world.fate() == ("waiting", 1)


@pytest.mark.parametrize("keys_are_kept", [True, False])
def test_an_undo_puts_nothing_beside_what_was_delivered_again(conn: Conn, world: World, keys_are_kept: bool) -> None:
    world.accept("kept")
    world.drain()
    # Rows with keys that no accepted event stands for.
    strays = [event_id_of(_SUBJECT), event_id_of("other")]
    conn.execute(
        "INSERT INTO analytics.events SELECT r.* FROM analytics.events AS e, unnest(%s::uuid[]) AS id,"
        " LATERAL jsonb_populate_record(e, jsonb_build_object('event_id', id)) AS r", (strays,),
    )  # fmt: skip
    conn.execute("INSERT INTO analytics.keys SELECT 1, tenant_id, event_id, received_at FROM analytics.events"
                 " WHERE event_id = ANY(%s)", (strays,))  # fmt: skip
    world.diff()
    world.commit()
    assert world.fate() == (None, 0)
    world.accept(_SUBJECT)
    world.drain()
    if not keys_are_kept:
        _lose_keys(conn)
    assert world.undo() == {"restored": 1, "kept_newer": 1, "left_alone": 0}
    assert (world.fate(), world.fate("other")) == ((None, 1), (None, 1))
    rows = conn.execute("SELECT count(*), count(DISTINCT event_id) FROM analytics.events").fetchone()
    assert rows == (3, 3)


def test_a_removed_row_stays_where_its_event_was_accepted_since(conn: Conn, world: World) -> None:
    world.accept("kept")
    world.drain()
    stray = event_id_of(_SUBJECT)
    conn.execute(
        "INSERT INTO analytics.events SELECT r.* FROM analytics.events AS e,"
        " LATERAL jsonb_populate_record(e, jsonb_build_object('event_id', %s::uuid)) AS r", (stray,),
    )  # fmt: skip
    conn.execute("INSERT INTO analytics.keys SELECT 1, tenant_id, event_id, received_at FROM analytics.events"
                 " WHERE event_id = %s", (stray,))  # fmt: skip
    world.diff()
    world.accept(_SUBJECT)
    world.drain()
    world.commit()
    assert world.fate() == (None, 1)
    assert report.show(conn, world.replay_id)["committed"]["skipped"] == 1


def test_of_an_event_twice_in_a_batch_one_dead_letter_is_delivered(conn: Conn, world: World) -> None:
    world.bury(_SUBJECT, _SUBJECT)
    world.diff()
    world.commit()
    states = "SELECT state FROM queue.dead_letters ORDER BY dead_letter_id"
    assert conn.execute(states).fetchall() == [("delivered",), ("waiting",)]
    world.is_exact()
    redrive(conn, Filter(), "a test")
    world.redeliver()
    assert conn.execute(states).fetchall() == [("delivered",), ("duplicate",)]
    # The second counts as the first one's duplicate: the row stays.
    assert world.undo() == {"restored": 0, "kept_newer": 1, "left_alone": 0}
    assert world.fate() == ("delivered", 1)
    world.is_exact()


@pytest.mark.parametrize("place", [1, 2, 3], ids=["before_commit", "before_undo", "after_undo"])
@pytest.mark.parametrize(
    ("decide", "rows"), [(_erase, [0, 0, 0]), (_recover, [1, 1, 1])], ids=["erase", "recover"]
)  # fmt: skip
def test_a_corrected_row_of_whom_something_was_decided(
    conn: Conn, world: World, decide: Step, rows: list[int], place: int
) -> None:
    if decide is _recover:
        open_epoch(conn, "shadow")
    world.accept(_SUBJECT, "other")
    world.drain()
    for table in ("analytics", "shadow"):
        conn.execute(f"UPDATE {table}.events SET name = 'mangled'")  # pyright: ignore
    for step in _PLACES[place](decide):
        step(world)
    assert world.fate() == (None, rows[place - 1])
    assert world.fate("other") == (None, 1)
    world.is_exact()
