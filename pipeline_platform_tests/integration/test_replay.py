"""Replay: plan, diff, commit and undo, by the workers' own engine on real servers."""

import dataclasses
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.errors import ClosedGateError, ConfigError
from pipeline_platform.event.types import AcceptedEvent, EventType, QueuedEvent, TenantId
from pipeline_platform.queue.keeper import drop_old_hours
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import PastRetentionError, Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.conditions import look_at
from pipeline_platform.worker.transform import Row, transform
from pipeline_platform_tests.support.migration import open_epoch
from pipeline_platform_tests.support.queue import accept, event, open_hours
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.transforms import bad_deploy
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]
_CONTENT = """
SELECT count(*), md5(string_agg(concat_ws('|', tenant_id, event_id, message_id, type, name, user_id, anonymous_id,
       group_id, occurred_at, received_at, properties, traits, context, tenant_name, tenant_plan, user_traits,
       batch_id),
       ',' ORDER BY tenant_id, event_id))
FROM analytics.events
"""
_EXACT = "SELECT count(*), md5(string_agg(e::text, ',' ORDER BY tenant_id, event_id)) FROM analytics.events AS e"


@pytest.fixture
def tenants(conn: Conn) -> list[TenantId]:
    open_hours(conn)
    return [tenant.tenant_id for tenant in add_tenants(conn, "acme", "globex")]


def _events(tenant: TenantId, count: int, kind: EventType = EventType.TRACK) -> list[AcceptedEvent]:
    return [
        event(
            tenant, str(uuid.UUID(int=tenant << 64 | n)), kind, client_at=datetime(2026, 1, 2, tzinfo=UTC),
            userId=f"u{n % 3}", event="Bought", properties={"price": n, "plan": "pro"}, traits={"n": n},
        )
        for n in range(count)
    ]  # fmt: skip


def _run(conn: Conn, workers: Workers, replay_id: int) -> dict[str, Any]:
    workers.replay()
    return report.diff(conn, replay_id)


def _scope(**more: Any) -> Scope:
    now = datetime.now(UTC)
    return Scope(now - timedelta(hours=1), now, **more)


def _plan(conn: Conn, **more: Any) -> int:
    return make_plan(conn, _scope(**more), "a test").replay_id


@pytest.fixture
def mangled(conn: Conn, workers: Workers, tenants: list[TenantId]) -> None:
    """300 events of each tenant; of acme the plan was lost and the price of one field mangled."""

    def bug(event: QueuedEvent) -> Row:
        row = transform(event)
        if event.tenant_id != tenants[0] or row.properties is None:
            return row
        return dataclasses.replace(row, properties=json.dumps(json.loads(row.properties) | {"price": "?"}).encode())

    for tenant in tenants:
        for at in range(0, 300, 100):
            accept(conn, *_events(tenant, 300)[at : at + 100])
    workers.drain(bug)


def _never_had_the_bug(conn: Conn, replay: int) -> None:
    wrong = conn.execute("SELECT count(*) FROM analytics.events WHERE properties ->> 'price' = '?'").fetchone()
    assert wrong == (0,)
    assert conn.execute("SELECT count(*) FROM analytics.events WHERE replay_id = %s", (replay,)).fetchone() == (300,)


@pytest.mark.usefixtures("mangled")
def test_a_bug_is_found_corrected_and_undone(conn: Conn, workers: Workers) -> None:
    before = conn.execute(_EXACT).fetchone()
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    found = _run(conn, workers, replay)
    assert found["state"] == "diffed" and conn.execute(_EXACT).fetchone() == before
    expected = {"events": 600, "added": 0, "changed": 300, "removed": 0, "unchanged": 300, "duplicate": 0, "failed": 0}
    assert {name: found["totals"][name] for name in expected} == expected
    assert found["fields"] == [{"field": "properties.price", "rows": 300}]
    assert found["samples"][0]["now"] == {"properties.price": "?"}
    steps.start_commit(conn, replay)
    done = _run(conn, workers, replay)
    assert (done["state"], done["committed"]["changed"], done["committed"]["skipped"]) == ("committed", 300, 0)
    _never_had_the_bug(conn, replay)
    assert not audit(conn).differences
    steps.start_undo(conn, replay, "a test")
    undone = _run(conn, workers, replay)
    assert (undone["state"], undone["undo"]) == ("undone", {"restored": 300, "kept_newer": 0, "left_alone": 0})
    assert conn.execute(_EXACT).fetchone() == before
    assert not audit(conn).differences


@pytest.mark.usefixtures("mangled")
def test_replayed_equals_a_run_without_the_bug(conn: Conn, workers: Workers, tenants: list[TenantId]) -> None:
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    _run(conn, workers, replay)
    steps.start_commit(conn, replay)
    _run(conn, workers, replay)
    replayed = conn.execute(_CONTENT).fetchone()
    # The same batches through the same engine, without the bug.
    conn.execute("TRUNCATE analytics.events, analytics.keys, control.traits")
    conn.execute("INSERT INTO queue.work (lane, batch_id, received_at, end_event)"
                 " SELECT 'live', batch_id, received_at, events FROM queue.batches")  # fmt: skip
    workers.drain()
    assert conn.execute(_CONTENT).fetchone() == replayed
    assert replayed and replayed[0] == 300 * len(tenants)


@pytest.mark.usefixtures("mangled")
def test_three_times_is_as_once(conn: Conn, workers: Workers) -> None:
    contents: set[Any] = set()
    for time in range(3):
        replay = _plan(conn)
        steps.start_diff(conn, replay)
        assert _run(conn, workers, replay)["totals"]["changed"] == (0 if time else 300)
        steps.start_commit(conn, replay)
        _run(conn, workers, replay)
        contents.add(conn.execute(_CONTENT).fetchone())
    assert len(contents) == 1
    funnel = conn.execute("SELECT sum(received), sum(duplicate), sum(delivered) FROM account.funnel"
                          " WHERE lane = 'replay'").fetchone()  # fmt: skip
    assert funnel == (1800, 1800, 0)
    assert not audit(conn).differences


@pytest.mark.usefixtures("mangled")
def test_what_changed_since_the_diff_is_named_and_skipped(conn: Conn, workers: Workers) -> None:
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    _run(conn, workers, replay)
    conn.execute("UPDATE analytics.events SET name = 'by hand' WHERE properties ->> 'price' = '?' AND user_id = 'u1'")
    steps.start_commit(conn, replay)
    done = _run(conn, workers, replay)
    assert done["committed"] == {"added": 0, "changed": 200, "removed": 0, "skipped": 100}
    assert len(done["skipped"]) == 50
    assert conn.execute("SELECT count(*) FROM analytics.events WHERE name = 'by hand'").fetchone() == (100,)


@pytest.mark.usefixtures("mangled")
def test_lost_rows_are_added_strangers_removed_and_both_undone(
    conn: Conn, workers: Workers, tenants: list[TenantId]
) -> None:
    conn.execute("DELETE FROM analytics.events WHERE tenant_id = %s AND user_id = 'u2'", (tenants[1],))
    stranger = "jsonb_populate_record(e, jsonb_build_object('event_id', gen_random_uuid()))"
    conn.execute(
        f"INSERT INTO analytics.events SELECT r.* FROM analytics.events AS e, LATERAL {stranger} AS r"  # pyright: ignore
        " WHERE e.tenant_id = %s LIMIT 5", (tenants[1],),
    )  # fmt: skip
    before = conn.execute(_EXACT).fetchone()
    replay = _plan(conn, tenant_ids=[tenants[1]])
    steps.start_diff(conn, replay)
    totals = _run(conn, workers, replay)["totals"]
    assert (totals["added"], totals["removed"], totals["changed"], totals["events"]) == (100, 5, 0, 300)
    steps.start_commit(conn, replay)
    assert _run(conn, workers, replay)["committed"] == {"added": 100, "changed": 0, "removed": 5, "skipped": 0}
    assert not audit(conn).differences
    steps.start_undo(conn, replay, "a test")
    _run(conn, workers, replay)
    assert conn.execute(_EXACT).fetchone() == before


@pytest.mark.usefixtures("mangled")
def test_only_missing_changes_nothing_that_is_there(conn: Conn, workers: Workers, tenants: list[TenantId]) -> None:
    conn.execute("DELETE FROM analytics.events WHERE tenant_id = %s AND user_id = 'u2'", (tenants[0],))
    replay = _plan(conn, only_missing=True, types=["track"])
    steps.start_diff(conn, replay)
    totals = _run(conn, workers, replay)["totals"]
    assert (totals["added"], totals["changed"], totals["unchanged"]) == (100, 0, 500)


def test_a_dead_letter_is_delivered_and_buried_again(conn: Conn, workers: Workers, tenants: list[TenantId]) -> None:
    accept(conn, *_events(tenants[0], 20))
    workers.drain(bad_deploy)
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    assert _run(conn, workers, replay)["totals"]["added"] == 20
    steps.start_commit(conn, replay)
    _run(conn, workers, replay)
    states = "SELECT state, count(*) FROM queue.dead_letters GROUP BY state"
    assert conn.execute(states).fetchall() == [("delivered", 20)]
    assert not audit(conn).differences
    steps.start_undo(conn, replay, "a test")
    _run(conn, workers, replay)
    assert conn.execute(states).fetchall() == [("exhausted", 20)]
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (0,)
    assert not audit(conn).differences


@pytest.mark.usefixtures("mangled")
def test_hours_are_held_until_the_commit_is_done(conn: Conn, settings: Settings, workers: Workers) -> None:
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    _run(conn, workers, replay)
    _age(conn)
    assert drop_old_hours(conn, settings.retention)
    steps.start_commit(conn, replay)
    assert drop_old_hours(conn, settings.retention)
    assert _run(conn, workers, replay)["committed"]["changed"] == 300
    assert drop_old_hours(conn, settings.retention) == {}
    with pytest.raises(PastRetentionError, match="past the retention"):
        _plan(conn)


def _age(conn: Conn) -> None:
    conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '80 hours'")


def _lose(conn: Conn) -> None:
    conn.execute("TRUNCATE queue.batches")
    conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '80 hours', dropped_at = now()")


@pytest.mark.usefixtures("mangled")
def test_a_paused_diff_holds_its_hours_and_is_named(conn: Conn, settings: Settings, workers: Workers) -> None:
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    assert workers.replaying.step() > 0
    steps.set_paused(conn, replay, is_paused=True)
    conn.execute("UPDATE replay.replays SET step_began_at = now() - interval '5 days'")
    _age(conn)
    refused = drop_old_hours(conn, settings.retention)
    assert refused and all(f"needed by replay {replay}" in why for why in refused.values())
    found = [each for each in look_at(conn, settings) if each.kind == "replay_holds_hours"]
    assert [(each.fingerprint, each.occurrences) for each in found] == [(str(replay), len(refused))]
    steps.set_paused(conn, replay, is_paused=False)
    totals = _run(conn, workers, replay)["totals"]
    assert (totals["changed"], totals["removed"]) == (300, 0)
    assert [each for each in look_at(conn, settings) if each.kind == "replay_holds_hours"]
    steps.cancel(conn, replay)
    assert not [each for each in look_at(conn, settings) if each.kind == "replay_holds_hours"]
    assert drop_old_hours(conn, settings.retention) == {}


@pytest.mark.usefixtures("mangled")
def test_a_diff_whose_hours_are_gone_never_says_removed(conn: Conn, workers: Workers) -> None:
    before = conn.execute(_EXACT).fetchone()
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    assert workers.replaying.step() > 0
    steps.set_paused(conn, replay, is_paused=True)
    _lose(conn)
    steps.set_paused(conn, replay, is_paused=False)
    found = _run(conn, workers, replay)
    assert (found["state"], found["is_paused"], found["totals"]["removed"]) == ("diffing", True, 0)
    with pytest.raises(ClosedGateError, match="is paused: its diff found 0 of"):
        steps.wait(conn, replay)
    with pytest.raises(ClosedGateError, match="is diffing"):
        steps.start_commit(conn, replay)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is not complete"):
        conn.execute("UPDATE replay.replays SET state = 'diffed'")
    with pytest.raises(ClosedGateError, match=r"dropped or replaced since: .*\(0 of 600 events\)"):
        steps.require_hours(conn, replay)
    assert conn.execute(_EXACT).fetchone() == before
    alert = "SELECT count(*) FROM control.alerts WHERE kind = 'replay_paused' AND resolved_at IS NULL"
    assert conn.execute(alert).fetchone() == (1,)
    steps.cancel(conn, replay)
    assert conn.execute(alert).fetchone() == (0,)


@pytest.mark.usefixtures("mangled")
def test_a_sweep_alone_proves_that_its_hour_is_whole(conn: Conn, workers: Workers) -> None:
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    while conn.execute("SELECT count(*) FROM replay.chunks WHERE NOT is_done AND NOT is_sweep").fetchone() != (0,):
        assert workers.replaying.step() > 0
    conn.execute("DELETE FROM queue.batches WHERE batch_id = (SELECT min(batch_id) FROM queue.batches)")
    found = _run(conn, workers, replay)
    assert (found["is_paused"], found["totals"]["removed"]) == (True, 0)


@pytest.mark.usefixtures("mangled")
def test_a_plan_and_a_cancelled_diff_hold_nothing_and_a_diff_asks_again(conn: Conn, settings: Settings) -> None:
    dropped, replaced, cancelled = _plan(conn), _plan(conn), _plan(conn)
    steps.start_diff(conn, cancelled)
    steps.cancel(conn, cancelled)
    conn.execute("DELETE FROM queue.batches WHERE batch_id = (SELECT min(batch_id) FROM queue.batches)")
    with pytest.raises(ClosedGateError, match="500 of 600 events"):
        steps.start_diff(conn, replaced)
    _age(conn)
    assert drop_old_hours(conn, settings.retention) == {}
    with pytest.raises(ClosedGateError, match="dropped or replaced since"):
        steps.start_diff(conn, dropped)


@pytest.mark.usefixtures("mangled")
def test_where_batches_are_missing_nothing_is_called_removed(conn: Conn, workers: Workers) -> None:
    before = conn.execute("SELECT count(*) FROM analytics.events").fetchone()
    conn.execute("DELETE FROM queue.batches WHERE batch_id = (SELECT min(batch_id) FROM queue.batches)")
    plan = make_plan(conn, _scope(), "a test")
    assert len(plan.unswept) == 1
    steps.start_diff(conn, plan.replay_id)
    found = _run(conn, workers, plan.replay_id)
    assert found["unswept_hours"] == plan.unswept
    assert (found["state"], found["totals"]["changed"], found["totals"]["removed"]) == ("diffed", 200, 0)
    with conn.transaction(force_rollback=True):
        conn.execute("UPDATE replay.chunks SET read_events = events - 1 WHERE chunk = 1")
        with pytest.raises(ClosedGateError, match="is not complete: 1 of its chunks"):
            steps.start_commit(conn, plan.replay_id)
    steps.start_commit(conn, plan.replay_id)
    _run(conn, workers, plan.replay_id)
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == before


@pytest.mark.usefixtures("mangled")
def test_steps_out_of_their_order_are_refused(conn: Conn, workers: Workers) -> None:
    replay = _plan(conn)
    with pytest.raises(ClosedGateError, match="is planned"):
        steps.start_commit(conn, replay)
    steps.start_diff(conn, replay)
    steps.set_paused(conn, replay, is_paused=True)
    assert workers.replaying.step() == 0
    steps.set_paused(conn, replay, is_paused=False)
    assert workers.replaying.step() > 0
    steps.cancel(conn, replay)
    assert workers.replaying.step() == 0
    with pytest.raises(ClosedGateError, match="is cancelled"):
        steps.start_diff(conn, replay)
    with pytest.raises(ConfigError, match="no type"):
        _plan(conn, types=["click"])


def test_rows_of_the_shadow_are_replayed_where_they_are(conn: Conn, workers: Workers, tenants: list[TenantId]) -> None:
    open_epoch(conn, "shadow")
    accept(conn, *_events(tenants[0], 30))
    workers.drain()
    conn.execute("UPDATE shadow.events SET name = 'wrong' WHERE user_id = 'u1'")
    conn.execute("DELETE FROM shadow.events WHERE user_id = 'u2'")
    exact = "SELECT md5(string_agg(e::text, ',' ORDER BY event_id)) FROM shadow.events AS e"
    before = conn.execute(exact).fetchone()
    replay = _plan(conn)
    steps.start_diff(conn, replay)
    totals = _run(conn, workers, replay)["totals"]
    assert (totals["added"], totals["changed"], totals["unchanged"]) == (10, 10, 10)
    steps.start_commit(conn, replay)
    _run(conn, workers, replay)
    assert conn.execute("SELECT count(*) FROM shadow.events WHERE name = 'Bought'").fetchone() == (30,)
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (0,)
    steps.start_undo(conn, replay, "a test")
    _run(conn, workers, replay)
    assert conn.execute(exact).fetchone() == before
