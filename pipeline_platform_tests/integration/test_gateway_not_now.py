"""When events cannot be stored now: 429 with Retry-After, and nothing is lost or left hanging."""

import signal
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import psutil
import psycopg

from pipeline_platform import schema
from pipeline_platform.local.services import start_postgres
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.gateway import (
    Blocked,
    Conn,
    Gateway,
    GatewayProcess,
    Start,
    assert_refused,
    event,
    in_parallel,
)
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

# Not now


def test_over_quota(start: Start) -> None:
    gateway = start(tenant_events_per_s="5", tenant_events_per_s_max="20")
    other = add_tenant(gateway.conn, "other").write_key
    assert [gateway.batch(*[event()] * events).status_code for events in (6, 100)] == [200, 200]
    assert_refused(gateway.batch(event()), 429, "over_quota")
    assert gateway.post("/v1/batch", {"batch": [event()]}, key=other).status_code == 200
    assert gateway.count("SELECT events FROM queue.batches WHERE lane = 'overflow'") == 100
    wait_for("the quota to come back", lambda: gateway.batch(event()).status_code == 200)


def test_the_queue_is_full(start: Start) -> None:
    gateway = start(queue_events_max="5")
    assert gateway.batch(*[event()] * 5).status_code == 200
    answer = wait_for("the queue to be full", lambda: refused_now(gateway))
    assert_refused(answer, 429, "queue_full")
    assert gateway.client.get("/readyz").status_code == 503
    gateway.conn.execute("DELETE FROM queue.work")
    wait_for("room", lambda: gateway.batch(event()).status_code == 200)


def refused_now(gateway: Gateway) -> httpx.Response | None:
    answer = gateway.batch(event())
    return answer if answer.status_code == 429 else None


def test_the_disk_is_full(settings: Settings, conn: Conn) -> None:
    with GatewayProcess(settings, disk_free_bytes_min=str(1 << 60)) as process:
        gateway = Gateway(process.start(route="/healthz"), conn)
        assert_refused(wait_for("the first look", lambda: refused_now(gateway)), 429, "disk_full")
        assert gateway.client.get("/readyz").status_code == 503
        gateway.client.close()


def test_too_many_wait(start: Start, block: Callable[[], Blocked]) -> None:
    gateway = start(pending_events_max="10")
    blocked = block()
    waiting = in_parallel([lambda: gateway.batch(*[event()] * 8)])
    wait_for("a committer to wait", gateway.waiting_committers)
    assert_refused(gateway.batch(*[event()] * 3), 429, "busy")
    blocked.release()
    assert waiting[0].result().status_code == 200
    assert gateway.batch(*[event()] * 3).status_code == 200


def test_a_commit_that_takes_too_long(start: Start, block: Callable[[], Blocked]) -> None:
    gateway = start(answer_timeout_s="0.5")
    blocked = block()
    assert_refused(gateway.batch(event()), 429, "timeout")
    blocked.release()
    wait_for("commits to go on", lambda: gateway.batch(event()).status_code == 200)


def test_a_commit_whose_outcome_is_unknown(gateway: Gateway, block: Callable[[], Blocked]) -> None:
    blocked = block()
    answers = in_parallel([lambda: gateway.batch(event())])
    [pid] = wait_for("a committer to wait", gateway.waiting_committers)
    gateway.conn.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert_refused(answers[0].result(), 429, "not_stored")
    blocked.release()
    wait_for("commits to go on", lambda: gateway.batch(event()).status_code == 200)


def test_a_server_process_that_hangs(start: Start, block: Callable[[], Blocked]) -> None:
    gateway = start(answer_timeout_s="0.5", committers="1")
    blocked = block()
    answers = in_parallel([lambda: gateway.batch(event())])
    [pid] = wait_for("the committer to wait", gateway.waiting_committers)
    hung = psutil.Process(pid)
    hung.suspend()
    try:
        assert_refused(answers[0].result(), 429, "timeout")
        blocked.release()
        # The hung process cannot let go of its connection: the gateway has to.
        wait_for("a new connection to commit", lambda: gateway.batch(event()).status_code == 200)
    finally:
        hung.resume()


def test_idle_connections_that_the_server_ends_cost_no_request(gateway: Gateway) -> None:
    assert gateway.batch(event()).status_code == 200
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'gateway [0-9]'"
    # By their pids: the gateway may have connected again before anybody looks.
    conn = gateway.conn
    pids = [pid for (pid,) in conn.execute(f"SELECT pid {ours}").fetchall()]
    ended = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM unnest(%s::integer[]) AS pid"
    assert conn.execute(ended, (pids,)).fetchone() == (2,)
    gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
    wait_for("them to be gone", lambda: conn.execute(gone, (pids,)).fetchone() == (0,))
    assert [gateway.batch(event()).status_code for _ in range(4)] == [200] * 4


def test_the_database_goes_down_and_comes_back(settings: Settings) -> None:
    home = settings.home / "own"
    with ExitStack() as running:
        server = running.enter_context(start_postgres(home, shared_buffers="32MB", max_wal_size="256MB"))
        schema.migrate(server.url)
        own = settings.model_copy(update={"database_url": server.url})
        with GatewayProcess(own) as process:
            process.start()
            with psycopg.connect(server.url, autocommit=True) as first:
                gateway = Gateway(process, first)
                assert gateway.batch(event()).status_code == 200
            server.process.send_signal(signal.SIGKILL)
            server.stop()
            assert gateway.batch(event()).status_code == 429
            wait_for("readyz to say so", lambda: gateway.client.get("/readyz").status_code == 503)
            # A request that waits on a connection the dying server has not ended yet is refused as too slow.
            wait_for("the reason to be known", lambda: gateway.batch(event()).json()["code"] == "database_down")
            assert_refused(gateway.batch(event()), 429, "database_down")
            # An unknown key cannot be refused while nobody can look it up.
            assert_refused(gateway.post("/v1/batch", {"batch": []}, key="who"), 429, "database_down")
            port = int(server.url.rpartition(":")[2].partition("/")[0])
            again = running.enter_context(start_postgres(home, shared_buffers="32MB", max_wal_size="256MB", port=port))
            assert again.url == server.url
            wait_for("events to be accepted", lambda: gateway.batch(event()).status_code == 200)
            wait_for("readyz", lambda: gateway.client.get("/readyz").status_code == 200)
            gateway.client.close()
