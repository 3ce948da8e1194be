"""Promise: told to stop, workers finish what they hold; nothing is half done and no process stays."""

from typing import Any

import psycopg

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.ledger import Ledger, Report
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]


def test_sigterm_under_load(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    ledger = Ledger(seed)
    tenants = add_tenants(conn, "a", "b")
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(150)
            workers = platform.workers()
            assert platform.stop_workers() == 0
            assert not any(worker.is_running() for worker in workers)
            load.await_acknowledged(50)
        assert conn.execute("SELECT count(*) FROM queue.work WHERE deaths > 0").fetchone() == (0,)
        platform.start_workers()
        platform.await_drained(conn)
    report(ledger.judge(conn))
