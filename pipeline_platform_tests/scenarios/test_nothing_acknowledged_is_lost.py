"""Promise: an event that was acknowledged is stored, exactly once, whatever dies at whatever moment."""

import random
import time
from typing import Any

import psycopg
import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.ledger import Ledger, Report
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.proxy import ReplyLosingProxy
from pipeline_platform_tests.support.servers import OwnServer, kill_backend
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]


@pytest.mark.parametrize("kill_point", ["gateway.before_commit", "gateway.after_commit"])
def test_a_gateway_dies_around_its_commit(
    settings: Settings, conn: Conn, seed: int, report: Report, kill_point: str
) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    tenants = add_tenants(conn, "a", "b", "c")
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway(f"{kill_point}:{rng.randrange(1, 40)}")
        with Load(platform.port, ledger, tenants) as load:
            wait_for("the gateway to die", platform.gateway_died)
            died_at = time.monotonic()
            platform.start_gateway()
            recovered_s = load.recovered_after(died_at)
            load.await_acknowledged(100)
        platform.await_drained(conn)
    report(ledger.judge(conn), recovered_s)


def test_a_gateway_dies_at_any_moment(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    rng, ledger, recovered_s = random.Random(seed), Ledger(seed), 0.0
    tenants = add_tenants(conn, "a", "b", "c")
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            for _ in range(2):
                load.await_acknowledged(rng.randrange(20, 400))
                platform.kill_gateway()
                died_at = time.monotonic()
                platform.start_gateway()
                recovered_s = max(recovered_s, load.recovered_after(died_at))
        platform.await_drained(conn)
    report(ledger.judge(conn), recovered_s)


_WORKER_POINTS = [
    f"worker.{place}" for place in ("after_claim", "after_enrich", "mid_load", "before_commit", "after_commit")
]


def test_workers_die_around_their_commit(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    tenants = add_tenants(conn, "a", "b", "c")
    points = [f"{point}:{rng.randrange(1, 20)}" for point in _WORKER_POINTS]
    rng.shuffle(points)
    with Platform(settings) as platform:
        platform.start_workers(kill_points=points)
        platform.start_gateway()
        with Load(platform.port, ledger, tenants):
            wait_for("every worker with a kill point to die", lambda: platform.worker_deaths() >= len(points), 60)
            died_at = time.monotonic()
            platform.await_drained_until(conn, newest_work(conn))
            recovered_s = time.monotonic() - died_at
        platform.await_drained(conn)
        assert platform.worker_deaths() == len(points), "a worker died that should not"
    assert conn.execute("SELECT count(*) FROM queue.dead_letters").fetchone() == (0,)
    report(ledger.judge(conn), recovered_s)


def test_workers_die_at_any_moment(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    rng, ledger, recovered_s = random.Random(seed), Ledger(seed), 0.0
    tenants = add_tenants(conn, "a", "b", "c")
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            for _ in range(4):
                load.await_acknowledged(rng.randrange(20, 200))
                platform.kill_a_worker(rng)
                died_at = time.monotonic()
                platform.await_drained_until(conn, newest_work(conn))
                recovered_s = max(recovered_s, time.monotonic() - died_at)
        platform.await_drained(conn)
    assert conn.execute("SELECT count(*) FROM queue.dead_letters").fetchone() == (0,)
    report(ledger.judge(conn), recovered_s)


def test_the_whole_pool_dies(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    ledger = Ledger(seed)
    tenants = add_tenants(conn, "a", "b")
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(200)
            platform.kill_pool()
            died_at = time.monotonic()
            load.await_acknowledged(200)
            platform.start_workers()
            platform.await_drained_until(conn, newest_work(conn))
            recovered_s = time.monotonic() - died_at
        platform.await_drained(conn)
    report(ledger.judge(conn), recovered_s)


@pytest.mark.parametrize("fault", ["backend", "postmaster", "restart"])
def test_postgres_dies_under_load(
    mortal_postgres: OwnServer, mortal_settings: Settings, seed: int, report: Report, fault: str
) -> None:
    rng, ledger, url = random.Random(seed), Ledger(seed), mortal_settings.database_url
    with psycopg.connect(url, autocommit=True) as conn:
        tenants = add_tenants(conn, "a", "b", "c")
    with Platform(mortal_settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(rng.randrange(50, 300))
            fault_at = time.monotonic()
            if fault == "backend":
                with psycopg.connect(url, autocommit=True) as conn:
                    kill_backend(conn, rng.choice(["gateway 0", "worker 1 work", "keeper"]))
            else:
                (mortal_postgres.kill if fault == "postmaster" else mortal_postgres.stop)()
                fault_at = time.monotonic()
                mortal_postgres.start()
            recovered_s = load.recovered_after(fault_at)
            load.await_acknowledged(100)
        with psycopg.connect(url, autocommit=True) as conn:
            platform.await_drained(conn)
            report(ledger.judge(conn), recovered_s)
        assert platform.worker_deaths() == 0, "an outage is no reason to die"


def test_the_reply_to_a_commit_is_lost(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    tenants = add_tenants(conn, "a", "b")
    with ReplyLosingProxy(settings.database_url) as proxy, Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway(database_url=proxy.url)
        with Load(platform.port, ledger, tenants) as load:
            for lost in range(1, 4):
                load.await_acknowledged(rng.randrange(20, 100))
                # The type of its first parameter: only the accepting statement has it, and it is sent each time.
                proxy.lose_reply_to(b"live")
                wait_for("a reply to be lost", lambda lost=lost: proxy.lost >= lost)
        platform.await_drained(conn)
    row = conn.execute("SELECT sum(duplicate) FROM account.funnel").fetchone()
    assert row
    assert row[0] > 0, "no commit was repeated: this test says nothing"
    report(ledger.judge(conn))


def newest_work(conn: Conn) -> int:
    """No work that is in the queue now has a greater id."""
    row = conn.execute("SELECT coalesce(max(work_id), 0) FROM queue.work").fetchone()
    assert row
    return row[0]
