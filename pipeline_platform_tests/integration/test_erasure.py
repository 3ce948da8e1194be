"""What an erasure finds, removes and leaves; what it says of it, in the account too."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.dead_letters.operations import Filter, redrive
from pipeline_platform.erasure.erase import erase
from pipeline_platform.erasure.plan import plan
from pipeline_platform.event.types import (
    Lane,
    RejectedEvent,
)
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.replay.report import show
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.erasure import SECRET, World
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]
_NUL = {"a": "\0"}


@pytest.fixture
def world(conn: Conn, settings: Settings, workers: Workers) -> World:
    return World(conn, settings, workers)


def fill(world: World) -> None:
    """The person's events in every state, other people's beside them in the same batches."""
    padding = {"filler": "x" * 300}
    envelope = json.dumps({"context": {"ip": SECRET}}).encode()
    other = world.event("other-1", userId="bob", properties=padding)
    rejected = RejectedEvent(
        world.tenant, f"r-{SECRET}", "missing_field", f"{SECRET} is odd", f'{{"userId":"{SECRET}","ev'.encode()
    )
    quoted = json.dumps({"userId": SECRET, "type": "nonsense"}).encode()
    world.accept(
        world.event(f"id-{SECRET}", type="identify", userId=SECRET, traits={"email": f"{SECRET}@x.org"}),
        world.event("a", userId=SECRET, anonymousId="phone", properties=padding | {"v": SECRET}, envelope=envelope),
        world.event("a", userId=SECRET, anonymousId="phone", properties=padding),
        other,
        world.event("b", anonymousId="phone", properties={"v": SECRET}),
        world.event("dead-1", userId=SECRET, properties=_NUL | {"v": SECRET}),
        world.event("dead-2", userId="bob", properties=_NUL),
        rejected=[rejected, RejectedEvent(world.tenant, None, "unknown_type", "no such type", quoted)],
    )
    world.drain()
    world.accept(
        world.event("a", userId=SECRET, anonymousId="phone"), world.event("c", userId="bob"), lane=Lane.OVERFLOW
    )
    world.drain()
    world.accept(world.event("flying", userId=SECRET), world.event("d", userId="bob"), other)


def test_nothing_of_the_person_is_left_and_the_account_holds(world: World) -> None:
    fill(world)
    before = world.numbers()
    assert before == {
        "received": 14, "accepted": 12, "rejected": 2, "delivered": 5, "duplicate": 2, "dead_lettered": 2,
        "in_flight": 3,
    }  # fmt: skip
    planted = "".join(world.places())
    for place in ("analytics.events_", "queue.batches_", "decompressed", "queue.dead_letters", "queue.quarantine",
                  "control.traits", "lookup:user"):  # fmt: skip
        assert place in planted
    found = world.erase()
    assert world.places() == {}
    after = world.numbers()
    assert after == before | {"delivered": 2, "dead_lettered": 1, "discarded": 4}
    assert found.outcomes == {"delivered": 3, "duplicate": 2, "dead_lettered": 1, "in_flight": 1}
    world.drain()
    assert world.numbers() == {
        "received": 14, "accepted": 12, "rejected": 2, "delivered": 3, "duplicate": 3, "dead_lettered": 1,
        "discarded": 5,
    }  # fmt: skip
    assert world.rows() == ["c", "d", "other-1"]
    assert world.places() == {}


def test_what_replays_keep_goes_too_and_no_replay_brings_it_back(world: World) -> None:
    fill(world)
    world.drain()
    world.conn.execute("UPDATE analytics.events SET name = 'mangled'")
    first, second = (make_plan(world.conn, _last_hour(), "a test").replay_id for _ in range(2))
    world.replay(lambda: steps.start_diff(world.conn, first))
    world.replay(lambda: steps.start_diff(world.conn, second))
    world.replay(lambda: steps.start_commit(world.conn, first))
    planted = "".join(world.places())
    assert "replay.scratch" in planted and "replay.before_images" in planted
    world.erase()
    assert world.places() == {}
    others = world.rows()
    world.replay(lambda: steps.start_undo(world.conn, first, "a test"))
    world.replay(lambda: steps.start_commit(world.conn, second))
    third = make_plan(world.conn, _last_hour(), "a test").replay_id
    world.replay(lambda: steps.start_diff(world.conn, third))
    assert show(world.conn, third)["totals"]["discarded"] > 0
    world.replay(lambda: steps.start_commit(world.conn, third))
    assert world.places() == {}
    assert world.rows() == others
    world.numbers()


def _last_hour() -> Scope:
    now = datetime.now(UTC)
    return Scope(now - timedelta(hours=1), now)


def test_a_dry_run_says_what_it_would_take_and_takes_nothing(world: World) -> None:
    fill(world)
    before = world.places()
    done = run_command(world.settings, "erase", "--tenant", "acme", "--user", SECRET, "--dry-run", "--json")
    assert done.code == 0
    assert done.answer["found"]["analytics"] == {"by_user_id": 2, "by_other_ids": 1}
    assert done.answer["found"]["queue"] == {"by_user_id": 6, "by_other_ids": 1}
    assert done.answer["ids"] == {"users": 1, "anonymous": 1, "shared": 0}
    assert world.places() == before
    assert world.conn.execute("SELECT count(*) FROM control.tombstones").fetchone() == (0,)


def test_the_command_erases_and_the_reason_must_not_name_the_person(world: World) -> None:
    fill(world)
    words = ("erase", "--tenant", "acme", "--user", SECRET, "--json", "--reason")
    assert run_command(world.settings, *words, f"{SECRET} asked for it").code == 2
    assert run_command(world.settings, "erase", "--tenant", "acme", "--user", SECRET).code == 2
    assert run_command(world.settings, "erase", "--tenant", "nobody", "--user", "u", "--reason", "x").code == 1
    done = run_command(world.settings, *words, "request 7")
    assert done.answer["outcomes"] == {"delivered": 3, "duplicate": 2, "dead_lettered": 1, "in_flight": 1}
    assert world.places() == {}
    logged = world.conn.execute("SELECT action, reason, detail->>'subject_hash' FROM control.audit_log").fetchall()
    assert logged == [("erase", "request 7", done.answer["subject_hash"])]


def test_others_keep_all_that_they_had(world: World) -> None:
    shared = json.dumps({"context": {"app": "shop"}}).encode()
    zeta = world.add_tenant("zeta")
    world.accept(
        world.event("mine", envelope=shared, userId=SECRET),
        world.event("theirs", envelope=shared, userId="bob", traits={"a": 1}, type="identify"),
        world.event("same-name", tenant=zeta, userId=SECRET),
    )
    world.drain()
    kept = "SELECT to_jsonb(e) FROM account.delivered AS e WHERE message_id <> 'mine' ORDER BY message_id"
    before = world.conn.execute(kept).fetchall()
    world.erase()
    assert world.conn.execute(kept).fetchall() == before
    assert world.conn.execute("SELECT envelopes FROM queue.batches").fetchone() == ([shared],)
    assert world.conn.execute("SELECT subject_id FROM control.traits").fetchall() == [("bob",)]
    world.numbers()


def test_an_identity_that_two_people_sent_in_one_batch_is_erased_of_one(world: World) -> None:
    world.accept(world.event("twin", userId="bob"), world.event("twin", userId=SECRET))
    world.accept(world.event("other-twin", userId=SECRET), world.event("other-twin", userId="bob"))
    world.drain()
    found = world.erase()
    assert world.rows() == ["twin"]
    assert found.outcomes == {"delivered": 1, "duplicate": 1}
    assert world.numbers() == {"received": 4, "accepted": 4, "delivered": 1, "duplicate": 2, "discarded": 1}


def test_what_is_sent_again_stays_a_duplicate_and_what_is_new_is_accepted(world: World) -> None:
    fill(world)
    world.erase()
    world.drain()
    again = [world.event(name, userId=SECRET) for name in ("a", "dead-1", "flying")]
    world.accept(*again, world.event("new", userId=SECRET))
    world.drain()
    assert world.rows() == ["c", "d", "new", "other-1"]
    assert world.numbers()["duplicate"] == 6
    world.erase()
    assert world.rows() == ["c", "d", "other-1"]
    assert world.places() == {}
    world.numbers()


def test_dead_letters_of_the_person_cannot_be_redriven(world: World) -> None:
    fill(world)
    world.erase()
    assert redrive(world.conn, Filter(tenants=["acme"]), "all of them") == 1
    world.redeliver()
    assert world.places() == {}
    states = world.conn.execute("SELECT message_id, state FROM queue.dead_letters ORDER BY dead_letter_id").fetchall()
    assert states == [(None, "discarded"), ("dead-2", "waiting")]
    world.numbers()


def test_a_dead_letter_that_was_delivered_since_loses_row_and_copy(world: World) -> None:
    world.accept(world.event("late", userId=SECRET, properties=_NUL | {"v": SECRET}))
    world.drain()
    world.conn.execute(
        "UPDATE queue.dead_letters SET payload = replace(encode(payload, 'escape'), 'u0000', 'u0041')::bytea"
    )
    world.conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now()")
    world.redeliver()
    assert world.rows() == ["late"]
    assert world.erase().outcomes == {"delivered": 1}
    assert world.places() == {}
    assert world.numbers() == {"received": 1, "accepted": 1, "discarded": 1}


def test_rows_whose_batches_were_dropped_go_too(world: World) -> None:
    fill(world)
    world.drain()
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '100 hours'")
    (hour,) = world.conn.execute(
        "SELECT date_trunc('hour', min(received_at), 'UTC') FROM queue.batches"
    ).fetchone() or (0,)
    world.conn.execute("SELECT queue.drop_hour(%s, '72 hours')", (hour,))
    before = funnel_of(world.conn).numbers
    found = world.erase()
    assert found.outcomes == {"delivered": 4, "dead_lettered": 1}
    assert world.places() == {}
    after = funnel_of(world.conn)
    assert after.balanced
    assert (after.numbers.delivered, after.numbers.discarded) == (before.delivered - 4, 5)


def test_shadow_rows_and_the_old_pipelines_are_erased(world: World) -> None:
    world.conn.execute("INSERT INTO control.epochs (epoch, phase) VALUES (2, 'shadow')")
    world.accept(world.event("s", userId=SECRET, properties={"v": SECRET}), world.event("o", userId="bob"))
    world.drain()
    world.conn.execute(
        "INSERT INTO legacy.events (tenant_id, event_id, message_id, type, user_id, occurred_at, arrived_at)"
        " SELECT tenant_id, event_id, message_id, type, user_id, occurred_at, received_at FROM shadow.events"
    )
    found = world.erase()
    assert world.places() == {}
    assert (found.changed["shadow"], found.changed["legacy"]) == (1, 1)
    assert any("under way" in other for other in found.not_ours)
    world.numbers()


def test_rows_of_now_lose_the_traits_of_then(world: World) -> None:
    world.accept(world.event("i", type="identify", userId=SECRET, traits={"email": SECRET}))
    world.drain()
    world.erase()
    world.accept(world.event("back", userId=SECRET))
    world.drain()
    assert world.conn.execute("SELECT message_id, user_traits FROM analytics.events").fetchall() == [("back", None)]


@pytest.mark.parametrize("point", ["erase.after_tombstones", "erase.after_batch:1", "erase.after_batch:2"])
def test_a_killed_erasure_leaves_the_account_exact_and_is_finished_by_the_next(world: World, point: str) -> None:
    fill(world)
    words = ("erase", "--tenant", "acme", "--user", SECRET, "--reason", "request 1")
    assert run_command(world.settings, *words, kill_point=point).code == -9
    world.numbers()
    assert world.places()
    assert run_command(world.settings, *words).code == 0
    assert world.places() == {}
    world.numbers()
    assert world.conn.execute("SELECT count(*), count(finished_at) FROM control.erasures").fetchone() == (1, 1)


def test_an_interrupted_erasure_finds_the_device_again_whose_link_it_has_erased(world: World) -> None:
    world.accept(world.event("1", userId=SECRET, anonymousId="phone"))
    world.drain()
    world.accept(world.event("2", anonymousId="phone", properties={"v": SECRET}), world.event("3", userId="bob"))
    world.drain()
    words = ("erase", "--tenant", "acme", "--user", SECRET, "--reason", "request 1")
    assert run_command(world.settings, *words, kill_point="erase.after_batch:1").code == -9
    assert world.rows() == ["2", "3"]
    assert run_command(world.settings, *words).code == 0
    assert world.rows() == ["3"]
    assert world.places() == {}
    world.numbers()


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_user_id_is_nobody(world: World, blank: str) -> None:
    world.accept(
        world.event("in", userId=SECRET, anonymousId="phone"),
        world.event("out", userId=blank, anonymousId="phone", properties={"v": SECRET}),
        world.event("other", userId=blank, anonymousId="kiosk"),
    )
    world.drain()
    assert world.erase().person.anonymous == {"phone"}
    assert world.rows() == ["other"]
    assert world.places() == {}


def test_one_forged_alias_erases_nobody_else(world: World) -> None:
    world.accept(
        world.event("forged", type="alias", userId="mallory", previousId="bob"),
        *(world.event(f"bob-{n}", userId="bob") for n in range(3)),
    )
    world.drain()
    world.accept(world.event("bob-flying", userId="bob"))
    looked = plan(world.settings, "acme", "mallory").every_id()
    assert looked == [
        {"id": "mallory", "link": "named by you", "is_erased": True, "events": {"queue": 1, "analytics": 1}},
        {"id": "bob", "link": "alias: bob became mallory", "is_erased": False, "events": {"queue": 4, "analytics": 3}},
    ]
    shown = run_command(world.settings, "erase", "--tenant", "acme", "--user", "mallory", "--dry-run").out
    assert 'not erased   "bob": analytics 3, queue 4 (alias: bob became mallory)' in shown
    world.erase("mallory")
    assert world.rows() == ["bob-0", "bob-1", "bob-2"]
    world.drain()
    assert "bob-flying" in world.rows()
    erase(world.settings, "acme", "mallory", "request 2", also=["bob"])
    assert world.rows() == []
    world.numbers()


def test_a_user_of_whom_only_traits_are_left_is_still_a_user(world: World) -> None:
    world.accept(world.event("i", type="identify", userId="bob", traits={"a": 1}))
    world.drain()
    world.conn.execute("DELETE FROM analytics.events")
    world.conn.execute("UPDATE queue.batches SET tenant_ids = '{0}'")
    world.accept(world.event("forged", type="alias", userId="mallory", previousId="bob"))
    world.drain()
    assert set(world.erase("mallory").person.linked) == {"bob"}
    assert world.conn.execute("SELECT subject_id FROM control.traits").fetchall() == [("bob",)]


def test_an_import_leaves_erased_people_out(world: World) -> None:
    fill(world)
    world.erase()
    at = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    events = [
        {"messageId": "h1", "userId": SECRET},
        {"messageId": "h2", "anonymousId": "phone"},
        {"messageId": "h3", "anonymousId": "phone", "userId": "bob"},
        {"messageId": "h4", "userId": "eve", "previousId": SECRET, "type": "alias"},
        {"messageId": "h5", "userId": "eve"},
    ]
    lines = [json.dumps({"type": "track", "event": "E", "tenant": "acme", "timestamp": at} | event) for event in events]
    words = ("import", "-", "--tenant-field", "tenant", "--received-at", "timestamp", "--json")
    done = run_command(world.settings, *words, stdin="\n".join(lines).encode())
    assert (done.answer["accepted"], done.answer["rejected"], done.answer["erased"]) == (2, 0, 3)
    assert world.places() == {}


def test_it_waits_for_the_worker_that_has_the_event_in_hand(world: World, database_url: str) -> None:
    world.accept(world.event("held", userId=SECRET), world.event("d", userId="bob"))
    with psycopg.connect(database_url) as worker, ThreadPoolExecutor(1) as pool:
        worker.execute("SET application_name = 'not of the platform'")
        worker.execute("SELECT FROM queue.work FOR UPDATE")
        erasing = pool.submit(world.erase)
        wait_for("the erasure to wait", lambda: world.conn.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pipeline-platform erase'"
            " AND wait_event_type = 'Lock'").fetchone())  # fmt: skip
        worker.rollback()
        erasing.result()
    world.drain()
    assert world.rows() == ["d"]
    assert world.numbers() == {"received": 2, "accepted": 2, "delivered": 1, "discarded": 1}


def test_bytes_that_nobody_can_read_are_dead_letters_still(world: World) -> None:
    world.accept(world.event("x", userId="bob"))
    world.conn.execute("UPDATE queue.batches SET codec = 'zstd'")
    world.drain()
    assert world.numbers() == {"received": 1, "accepted": 1, "dead_lettered": 1}
