"""Promise: a worker that hangs holds up what it has in hand at most; the other delivers what comes, once each."""

from typing import Any

import psutil
import psycopg
import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.ledger import Ledger, Report
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]


def _slot(worker: psutil.Process) -> int:
    command = worker.cmdline()
    return int(command[command.index("--slot") + 1])


@pytest.mark.parametrize("slot", [1, 2])
def test_one_of_two_workers_hangs_under_load(
    settings: Settings, conn: Conn, seed: int, report: Report, slot: int
) -> None:
    ledger = Ledger(seed)
    tenants = add_tenants(conn, "a", "b")

    def delivered() -> int:
        row = conn.execute("SELECT count(*) FROM analytics.events").fetchone()
        return row[0] if row else 0

    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        (hung,) = [worker for worker in platform.workers() if _slot(worker) == slot]
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(50)
            hung.suspend()
            before = delivered()
            wait_for("the other worker to deliver", lambda: delivered() > before + 300)
            hung.resume()
        platform.await_drained(conn)
    report(ledger.judge(conn))
