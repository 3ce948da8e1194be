"""The low-water mark never passes work that can still become visible, however long its commit takes."""

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect, connect_async
from pipeline_platform.dead_letters.readmit import Quarantined, readmit
from pipeline_platform.event.types import Lane, TenantId
from pipeline_platform.migration.mirror.low_water import MirrorLowWater
from pipeline_platform.queue.batches import claim, complete
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.queue.low_water import LowWater
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import open_epoch
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.servers import fresh_database, own_postgres
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def an_hour_passes_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is long enough to be relied on."""
    hours = itertools.count(0, 3600)
    clock = SimpleNamespace(monotonic=lambda: float(next(hours)))
    monkeypatch.setattr("pipeline_platform.queue.low_water.time", clock)


@pytest.fixture
def other(database_url: str) -> Iterator[Conn]:
    with connect(database_url, "other") as connection:
        yield connection


def accept_one(conn: Conn, tenant: TenantId) -> int:
    """The batch_id of one event."""
    return accept(conn, event(tenant)).batch_id


def work_through(conn: Conn, low_water: LowWater, lane: Lane = Lane.LIVE) -> list[int]:
    """The batches that a worker finds and completes after some looks."""
    for _ in range(5):
        low_water.refresh(conn)
    with conn.transaction():
        works = claim(conn, lane, 100, low_water.marks[lane])
        complete(conn, works)
    return [work.batch.batch_id for work in works]


def test_the_mark_follows_what_was_completed(conn: Conn, tenant: TenantId) -> None:
    low_water = LowWater()
    batches = [accept_one(conn, tenant) for _ in range(20)]
    assert work_through(conn, low_water) == batches
    work_through(conn, low_water)
    assert low_water.marks[Lane.LIVE] == 20
    assert work_through(conn, low_water) == []


def test_work_of_a_long_transaction_is_claimed_after_its_commit(conn: Conn, other: Conn, tenant: TenantId) -> None:
    low_water = LowWater()
    with other.transaction():
        late = accept_one(other, tenant)
        for _ in range(3):
            assert [accept_one(conn, tenant)] == work_through(conn, low_water)
    assert work_through(conn, low_water) == [late]


def test_nobody_else_holds_the_mark(conn: Conn, other: Conn, tenant: TenantId) -> None:
    """A forgotten transaction that has read the queue and written elsewhere."""
    low_water = LowWater()
    with other.transaction():
        other.execute("SELECT count(*) FROM queue.work")
        other.execute("UPDATE control.tenants SET plan = 'x'")
        for _ in range(3):
            assert [accept_one(conn, tenant)] == work_through(conn, low_water)
            work_through(conn, low_water)
        assert low_water.marks[Lane.LIVE] == 3


def test_readmitted_events_are_claimed_however_long_it_takes(conn: Conn, settings: Settings, tenant: TenantId) -> None:
    """An operator's command has no limit in time: here its line in the audit log waits."""
    conn.execute(
        "INSERT INTO queue.quarantine (tenant_id, received_at, lane, code, message, payload)"
        " VALUES (%s, clock_timestamp(), 'live', 'c', 'm', '{}')",
        (tenant,),
    )
    low_water, good = LowWater(), b'{"type":"track","event":"x","userId":"u"}'
    with (
        psycopg.connect(settings.database_url) as blocking,
        connect(settings.database_url, "operator", lock_timeout_s=0, statement_timeout_s=0) as operator,
        ThreadPoolExecutor(1) as thread,
    ):
        blocking.execute("LOCK TABLE control.audit_log IN SHARE MODE")
        done = thread.submit(readmit, operator, settings, Quarantined(), lambda _: good, "a test", dry_run=False)
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'control.audit_log'::regclass AND NOT granted"
        wait_for("the command to wait", lambda: conn.execute(waiting).fetchone() == (1,))
        for _ in range(3):
            assert [accept_one(conn, tenant)] == work_through(conn, low_water)
        blocking.rollback()
        assert done.result(30).accepted == 1
    assert len(work_through(conn, low_water, Lane.OVERFLOW)) == 1


def test_a_commit_that_waits_for_a_standby_is_claimed_once_it_returns(home: Path) -> None:
    server = own_postgres(home)
    try:
        url = fresh_database(server, "away")
        with (
            connect(url, "gateway", statement_timeout_s=0, more="-c transaction_timeout=1000") as waits,
            connect(url, "local", more="-c synchronous_commit=local") as conn,
            ThreadPoolExecutor(1) as thread,
        ):
            open_partitions(conn)
            tenant = add_tenant(conn, "acme").tenant_id
            standbys(conn, "nobody")
            late = thread.submit(accept_one, waits, tenant)
            hangs = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_for("the commit to hang", lambda: conn.execute(hangs).fetchone() == (1,))
            low_water = LowWater()
            for _ in range(3):
                assert [accept_one(conn, tenant)] == work_through(conn, low_water)
            standbys(conn, "")
            assert work_through(conn, low_water) == [late.result(30)]
    finally:
        server.stop()


def standbys(conn: Conn, names: str) -> None:
    """Set which standbys each commit waits for."""
    conn.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")  # pyright: ignore
    conn.execute("SELECT pg_reload_conf()")
    wait_for("the setting", lambda: conn.execute("SHOW synchronous_standby_names").fetchone() == (names,))


def test_the_mirrors_mark_waits_as_well(settings: Settings, conn: Conn, other: Conn, tenant: TenantId) -> None:
    open_epoch(conn, "shadow")

    async def looks(low_water: MirrorLowWater) -> int:
        url = settings.database_url
        async with await connect_async(url, "mirror") as looking, await connect_async(url, "side") as side:
            for _ in range(5):
                await low_water.refresh(looking, side)
        return low_water.low_water

    low_water = MirrorLowWater()
    with other.transaction():
        accept_one(other, tenant)
        conn.execute("DELETE FROM queue.mirror WHERE batch_id = %s", (accept_one(conn, tenant),))
        assert asyncio.run(looks(low_water)) == 0
    assert asyncio.run(looks(low_water)) == 1
    conn.execute("DELETE FROM queue.mirror")
    assert asyncio.run(looks(low_water)) == 2
