"""Refreshes of roll-ups at once with writers and with each other: what is not marked is right, always."""

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.analytics import rollups
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.rollups import first_value, refreshed, wrong
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]


def _insert(conn: Conn, tenant: int, received_at: datetime, name: str = "E") -> None:
    conn.execute(
        "INSERT INTO analytics.events (tenant_id, event_id, message_id, type, name, occurred_at, received_at,"
        " delivered_at, batch_id) VALUES (%s, gen_random_uuid(), 'm', 'track', %s, %s, %s, now(), 1)",
        (tenant, name, received_at, received_at),
    )


def _mark(conn: Conn, tenant: int, hour: datetime) -> None:
    conn.execute("INSERT INTO analytics.rollup_marks (tenant_id, received_hour) VALUES (%s, %s)", (tenant, hour))


@pytest.fixture
def hour(conn: Conn) -> datetime:
    found = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    conn.execute("SELECT queue.open_hour(%s)", (found,))
    return found


def test_a_row_that_a_refresh_cannot_see_yet_keeps_its_mark(conn: Conn, database_url: str, hour: datetime) -> None:
    _insert(conn, 1, hour)
    _mark(conn, 1, hour)
    with psycopg.connect(database_url) as writer:
        _insert(writer, 1, hour)
        _mark(writer, 1, hour)
        assert rollups.refresh(conn) == 1
        assert first_value(conn, "SELECT events FROM analytics.rollups") == 1
    assert first_value(conn, "SELECT count(*) FROM analytics.unrolled") == 1
    assert refreshed(conn) == []
    assert first_value(conn, "SELECT events FROM analytics.rollups") == 2


def test_no_older_count_is_written_over_a_newerone(conn: Conn, database_url: str, hour: datetime) -> None:
    _insert(conn, 1, hour)
    _mark(conn, 1, hour)
    with psycopg.connect(database_url) as slow:
        assert slow.execute("SELECT analytics.refresh_rollups(10)").fetchone() == (1,)
        _insert(conn, 1, hour)
        _mark(conn, 1, hour)
        assert rollups.refresh(conn) is None, "two at a time"
    assert refreshed(conn) == []
    with psycopg.connect(database_url) as frozen:
        frozen.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            frozen.execute("SELECT analytics.refresh_rollups(10)")


def test_writers_and_refreshers_at_once(conn: Conn, database_url: str, hour: datetime) -> None:
    """Rows come and go in transactions of every length, while several refresh: what is not marked is right, always."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def guarded(run: Callable[[Conn, int], None], number: int) -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as own:
                while not stop.is_set():
                    run(own, number)
        except BaseException as error:  # noqa: BLE001 -- raised again below
            failed.append(error)

    def write(own: Conn, number: int) -> None:
        with own.transaction():
            tenant = 1 + number % 3
            for name in "AB":
                _insert(own, tenant, hour + timedelta(seconds=number), name)
            own.execute("DELETE FROM analytics.events WHERE tenant_id = %s AND event_id < gen_random_uuid()"
                        " AND name = 'B' AND received_at = %s", (tenant, hour + timedelta(seconds=number)))  # fmt: skip
            _mark(own, tenant, hour)

    def refresh(own: Conn, _: int) -> None:
        rollups.refresh(own, 2)

    judged = 0
    threads = [threading.Thread(target=guarded, args=(write, number)) for number in range(4)]
    threads += [threading.Thread(target=guarded, args=(refresh, number)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        with psycopg.connect(database_url) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while judged < 40 and not failed:
                with reader.transaction():
                    waiting = {row[0] for row in reader.execute("SELECT tenant_id FROM analytics.unrolled")}
                    assert [row for row in wrong(reader) if row[0] not in waiting] == []
                    judged += 3 - len(waiting)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not failed, failed
    assert refreshed(conn) == []


def test_a_killed_refresh_is_taken_up(conn: Conn, settings: Settings, hour: datetime) -> None:
    conn.execute(
        "INSERT INTO analytics.events (tenant_id, event_id, message_id, type, occurred_at, received_at, delivered_at,"
        " batch_id) SELECT t, gen_random_uuid(), 'm', 'track', %(hour)s, %(hour)s, now(), 1"
        " FROM generate_series(1, 2000) AS t",
        {"hour": hour},
    )
    conn.execute("INSERT INTO analytics.rollup_marks (tenant_id, received_hour) SELECT t, %s"
                 " FROM generate_series(1, 2000) AS t", (hour,))  # fmt: skip
    code = (
        "import sys, psycopg; from pipeline_platform.analytics.rollups import refresh_all;"
        "refresh_all(psycopg.connect(sys.argv[1], autocommit=True), 1)"
    )
    left = "SELECT count(*) FROM analytics.rollup_marks"
    process = subprocess.Popen([sys.executable, "-c", code, settings.database_url])
    try:
        wait_for("some to be done", lambda: first_value(conn, left) < 1_900)
    finally:
        process.kill()
        process.wait()
    assert 0 < first_value(conn, left) < 2_000
    assert {row[0] for row in wrong(conn)} == {
        row[0] for row in conn.execute("SELECT tenant_id FROM analytics.unrolled")
    }
    assert refreshed(conn) == []
