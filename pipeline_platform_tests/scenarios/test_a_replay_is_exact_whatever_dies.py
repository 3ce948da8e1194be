"""Promise: a replay killed at every step, under live load, corrects what its diff said, exactly, and can be undone."""

import random
from typing import Any

import psycopg
import pytest

from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.replay.report import show
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.ledger import Ledger, Report
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenants

pytestmark = pytest.mark.timeout(900)

Conn = psycopg.Connection[Any]
_POINTS = ["replay.after_take", "replay.before_commit", "replay.after_commit"]
_PLANTED = """
UPDATE analytics.events SET properties = '{"mangled": true}' WHERE received_at < %s AND event_id::text < '8'
"""
_LOST = "DELETE FROM analytics.events WHERE received_at < %s AND event_id::text > 'e'"
_EXACT = """
SELECT count(*), md5(string_agg(e::text, ',' ORDER BY tenant_id, event_id)) FROM analytics.events AS e
WHERE received_at < %s
"""


def test_a_replay_is_killed_at_every_step_under_load(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    tenants = add_tenants(conn, "a", "b", "c")
    with Platform(settings) as platform:
        # Each step of each kind dies: processes are started again and die of the next point.
        platform.start_workers(kill_points=[f"{point}:{rng.randrange(1, 3)}" for _ in range(3) for point in _POINTS])
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(400)
            start, cut = _window(conn)
            # What was received before the cut may still be in a commit: what follows it is acknowledged after it.
            load.await_acknowledged(200)
            platform.await_drained_until(conn, _newest_work(conn))
            for statement in (_PLANTED, _LOST):
                assert conn.execute(statement, (cut,)).rowcount > 0
            before = conn.execute(_EXACT, (cut,)).fetchone()
            replay_id = make_plan(conn, Scope(start, cut), "a test").replay_id
            _split_chunks(conn, replay_id)
            steps.start_diff(conn, replay_id)
            steps.wait(conn, replay_id)
            steps.start_commit(conn, replay_id)
            steps.wait(conn, replay_id)
            steps.start_undo(conn, replay_id, "a test")
            steps.wait(conn, replay_id)
            assert conn.execute(_EXACT, (cut,)).fetchone() == before
            again = make_plan(conn, Scope(start, cut), "a test").replay_id
            steps.start_diff(conn, again)
            steps.wait(conn, again)
            steps.start_commit(conn, again)
            steps.wait(conn, again)
            load.await_acknowledged(50)
        platform.await_drained(conn)
        assert platform.worker_deaths() >= len(_POINTS)
    assert _skipped(conn, again) == 0
    report(ledger.judge(conn))


def _newest_work(conn: Conn) -> int:
    row = conn.execute("SELECT coalesce(max(work_id), 0) FROM queue.work").fetchone()
    return row[0] if row else 0


def _window(conn: Conn) -> tuple[Any, Any]:
    """From the first event to now."""
    row = conn.execute("SELECT min(received_at), clock_timestamp() FROM queue.batches").fetchone()
    assert row
    return row


def _split_chunks(conn: Conn, replay_id: int) -> None:
    """A chunk a batch, so that every step has several to die of."""
    conn.execute("DELETE FROM replay.chunks WHERE replay_id = %s AND NOT is_sweep", (replay_id,))
    conn.execute(
        "INSERT INTO replay.chunks (replay_id, chunk, hour, is_sweep, first_batch, last_batch, events)"
        " SELECT r.replay_id, 1000 + row_number() OVER (), date_trunc('hour', b.received_at, 'UTC'), false, b.batch_id,"
        " b.batch_id, b.events FROM replay.replays AS r JOIN queue.batches AS b ON b.received_at < r.window_end"
        " WHERE r.replay_id = %s",
        (replay_id,),
    )


def _skipped(conn: Conn, replay_id: int) -> int:
    return show(conn, replay_id)["committed"]["skipped"]
