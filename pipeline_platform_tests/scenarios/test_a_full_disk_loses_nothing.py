"""Promise: a full disk is answered with 429; nothing acknowledged is lost, and it goes on when there is room again.

The disks are small tmpfs, so these need root; elsewhere they are skipped.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.disks import fill, make_room, small_disk
from pipeline_platform_tests.support.ledger import Ledger, Report
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.servers import OwnServer, fresh_database, own_postgres
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.waiting import wait_for

_DATA_MB, _WAL_MB = 400, 256


class SmallDisks:
    """PostgreSQL with its data on one small disk and its WAL on another."""

    def __init__(self, data: Path, wal: Path) -> None:
        self.disks = {"data": data, "wal": wal}
        self.server = own_postgres(data)
        self.server.stop()
        here = data / "postgres" / "data" / "pg_wal"
        there = wal / "pg_wal"
        subprocess.run(["cp", "-a", here, there], check=True)
        subprocess.run(["rm", "-r", here], check=True)
        here.symlink_to(there)
        self.server.start()

    def fill(self, disk: str) -> None:
        """To the last byte, with a file of our own."""
        fill(self.disks[disk])

    def make_room(self, disk: str) -> None:
        make_room(self.disks[disk])


@pytest.fixture
def small_disks() -> Iterator[SmallDisks]:
    with ExitStack() as stack:
        disks = SmallDisks(stack.enter_context(small_disk(_DATA_MB)), stack.enter_context(small_disk(_WAL_MB)))
        stack.callback(disks.server.stop)
        yield disks


@pytest.fixture
def small_settings(small_disks: SmallDisks, redis_url: str, home: Path) -> Settings:
    return Settings(home=home, database_url=fresh_database(small_disks.server, "small"), redis_url=redis_url)


def _await_refusal(port: int, ledger: Ledger, tenant: Tenant, rng: random.Random) -> None:
    client = Client(port, tenant.write_key)

    def is_refused() -> bool:
        events = [ledger.event(tenant, rng) for _ in range(50)]
        answer = client.send(events)
        ledger.note(tenant, events, answer.outcome)
        return answer.outcome == "refused"

    wait_for("a 429", is_refused, 60)
    client.close()


def test_the_disk_under_the_data_is_full(
    small_disks: SmallDisks, small_settings: Settings, seed: int, report: Report
) -> None:
    ledger, rng = Ledger(seed), random.Random(seed)
    with psycopg.connect(small_settings.database_url, autocommit=True) as conn, Platform(small_settings) as platform:
        tenants = add_tenants(conn, "a", "b")
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(100)
            small_disks.fill("data")
            _await_refusal(platform.port, ledger, tenants[0], rng)
            small_disks.make_room("data")
            fault_at = time.monotonic()
            recovered_s = load.recovered_after(fault_at)
            load.await_acknowledged(100)
        platform.await_drained(conn)
        report(ledger.judge(conn), recovered_s)
        assert platform.worker_deaths() == 0, "a full disk is no reason to die"


def test_the_disk_under_the_wal_is_full(
    small_disks: SmallDisks, small_settings: Settings, seed: int, report: Report
) -> None:
    """PostgreSQL panics where it cannot write its WAL: it is started again once there is room."""
    ledger, rng, url = Ledger(seed), random.Random(seed), small_settings.database_url
    with psycopg.connect(url, autocommit=True) as conn:
        tenants = add_tenants(conn, "a", "b")
    with Platform(small_settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(100)
            small_disks.fill("wal")
            _use_up_the_wal(small_disks.server, url)
            _await_refusal(platform.port, ledger, tenants[0], rng)
            small_disks.make_room("wal")
            small_disks.server.stop()
            small_disks.server.start()
            fault_at = time.monotonic()
            recovered_s = load.recovered_after(fault_at)
            load.await_acknowledged(100)
        with psycopg.connect(url, autocommit=True) as conn:
            platform.await_drained(conn)
            report(ledger.judge(conn), recovered_s)


def _use_up_the_wal(server: OwnServer, url: str) -> None:
    """Until the next segment has no room: PostgreSQL ends all connections."""

    def has_panicked() -> bool:
        try:
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'test', repeat('x', 1000))")
        except psycopg.OperationalError:
            return True
        return False

    wait_for("PostgreSQL to run out of WAL", has_panicked, 60)
