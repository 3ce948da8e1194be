"""Promise: a sealed hour is complete. Nothing can arrive in it any more, whatever the clocks say."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.event.types import TenantId
from pipeline_platform.queue.keeper import Keeper, drop_old_hours, seal_due_hours
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_HOUR = timedelta(hours=1)
_LONG_AGO = datetime(2026, 3, 29, 0, tzinfo=UTC)


@pytest.fixture
def other(database_url: str) -> Iterator[Conn]:
    """A second session."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def accept_one(conn: Conn, tenant: TenantId) -> datetime:
    """The received_at of one event."""
    return accept(conn, event(tenant)).received_at


def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def seal_as_if_past(conn: Conn, hour: datetime, ago: timedelta = timedelta(0)) -> None:
    """What is left behind by a clock that was ahead and has been stepped back: a sealed hour that is not over."""
    conn.execute("SELECT queue.open_hour(%s)", (hour,))
    conn.execute("UPDATE queue.hours SET sealed_at = clock_timestamp() - %s, seals = 1 WHERE hour = %s", (ago, hour))


def can_seal(conn: Conn, hour: datetime) -> bool:
    row = conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone()
    assert row
    return row[0]


def enter_past_hour(conn: Conn, hour: datetime) -> None:
    """What every accepting transaction does with its hour; here with one that is over already."""
    conn.execute("SELECT pg_advisory_xact_lock_shared(queue.hour_lock(%s))", (hour,))


def test_the_hour_that_is_running_is_not_sealed(conn: Conn, tenant: TenantId) -> None:
    assert not can_seal(conn, hour_of(accept_one(conn, tenant)))


def test_an_open_accepting_transaction_keeps_its_hour_unsealed(conn: Conn, other: Conn) -> None:
    conn.execute("SELECT queue.open_hour(%s)", (_LONG_AGO,))
    for end in ("commit", "rollback"):
        with other.transaction() as transaction:
            enter_past_hour(other, _LONG_AGO)
            assert not can_seal(conn, _LONG_AGO)
            if end == "rollback":
                raise psycopg.Rollback(transaction)
    assert can_seal(conn, _LONG_AGO)


def test_one_open_hour_does_not_keep_the_others_unsealed(conn: Conn, other: Conn) -> None:
    hours = [_LONG_AGO + number * _HOUR for number in range(3)]
    for hour in hours:
        conn.execute("SELECT queue.open_hour(%s)", (hour,))
    with other.transaction():
        enter_past_hour(other, hours[1])
        seal_due_hours(conn)
        assert sealed(conn) == [hours[0], hours[2]]
    seal_due_hours(conn)
    assert sealed(conn) == hours


def test_a_session_that_imports_keeps_its_hours_unsealed(conn: Conn, other: Conn) -> None:
    conn.execute("SELECT queue.open_hour(%s)", (_LONG_AGO,))
    other.execute("SELECT pg_advisory_lock_shared(queue.hour_lock(%s))", (_LONG_AGO,))
    seal_due_hours(conn)
    assert sealed(conn) == []
    other.execute("SELECT pg_advisory_unlock_shared(queue.hour_lock(%s))", (_LONG_AGO,))
    seal_due_hours(conn)
    assert sealed(conn) == [_LONG_AGO]


def test_a_sealed_hour_accepts_nothing(conn: Conn, tenant: TenantId) -> None:
    first = accept_one(conn, tenant)
    seal_as_if_past(conn, hour_of(first))
    second = accept_one(conn, tenant)
    assert second == hour_of(first) + _HOUR
    assert accept_one(conn, tenant) >= second
    assert count(conn, "queue.batches", hour_of(first)) == 1


def test_time_goes_on_after_the_servers_clock_was_stepped_back(conn: Conn, tenant: TenantId) -> None:
    """An hour back, in the middle of a load: received_at never enters an hour that was sealed, nor goes backwards."""
    this_hour = hour_of(accept_one(conn, tenant))
    for ahead in range(3):
        seal_as_if_past(conn, this_hour + ahead * _HOUR)
    received = [accept_one(conn, tenant) for _ in range(3)]
    assert received == sorted(received)
    assert {hour_of(at) for at in received} == {this_hour + 3 * _HOUR}
    found = conn.execute("SELECT DISTINCT hour FROM account.funnel ORDER BY hour").fetchall()
    assert found == [(this_hour,), (this_hour + 3 * _HOUR,)], "the account follows received_at"


def test_whoever_waits_while_its_hour_is_sealed_goes_to_the_next(
    database_url: str, conn: Conn, other: Conn, tenant: TenantId
) -> None:
    """The race itself: the acceptance has looked at the clock already."""
    this_hour = hour_of(accept_one(conn, tenant))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(database_url, autocommit=True) as accepting, ThreadPoolExecutor(1) as thread:
        with other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(queue.hour_lock(%s))", (this_hour,))
            received = thread.submit(accept_one, accepting, tenant)
            wait_for("the acceptance to wait", lambda: conn.execute(waiting.encode()).fetchone() == (1,))
            other.execute("UPDATE queue.hours SET sealed_at = clock_timestamp() WHERE hour = %s", (this_hour,))
        assert received.result(30) == this_hour + _HOUR
    assert count(conn, "queue.batches", this_hour) == 1


def test_an_hour_is_not_dropped_before_its_retention_nor_with_open_work(
    conn: Conn, other: Conn, tenant: TenantId, settings: Settings
) -> None:
    hour = hour_of(accept_one(conn, tenant))
    drop = "SELECT queue.drop_hour(%s, '72 hours')"
    with pytest.raises(psycopg.errors.ObjectInUse, match="was not sealed"):
        conn.execute(drop, (hour,))
    seal_as_if_past(conn, hour, timedelta(hours=71))
    with pytest.raises(psycopg.errors.ObjectInUse, match="was not sealed"):
        conn.execute(drop, (hour,))
    seal_as_if_past(conn, hour, timedelta(hours=73))
    with pytest.raises(psycopg.errors.ObjectInUse, match="still has 1 pieces of work"):
        conn.execute(drop, (hour,))
    assert list(drop_old_hours(conn, settings.retention)) == [hour.isoformat()]
    drain(settings)
    with other.transaction():
        enter_past_hour(other, hour)
        with pytest.raises(psycopg.errors.ObjectInUse, match="is being written"):
            conn.execute(drop, (hour,))
    assert drop_old_hours(conn, settings.retention) == {}
    assert count(conn, "queue.batches", hour) == 0
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (1,), "what was delivered stays"
    assert conn.execute("SELECT sum(delivered) FROM account.funnel").fetchone() == (1,), "and its account"


def test_a_dropped_hour_can_be_opened_again(conn: Conn) -> None:
    conn.execute("SELECT queue.open_hour(%s)", (_LONG_AGO,))
    seal_as_if_past(conn, _LONG_AGO, timedelta(days=9))
    drop_old_hours(conn, timedelta(hours=72))
    conn.execute("SELECT queue.open_hour(%s)", (_LONG_AGO,))
    assert count(conn, "queue.batches", _LONG_AGO) == 0
    assert sealed(conn) == []


def test_any_number_of_keepers_do_no_harm(conn: Conn, other: Conn, settings: Settings, tenant: TenantId) -> None:
    for number in range(3):
        conn.execute("SELECT queue.open_hour(%s)", (_LONG_AGO + number * _HOUR,))
    accept_one(conn, tenant)
    for _ in range(2):
        Keeper(settings).tick(conn)
        Keeper(settings).tick(other)
    assert len(sealed(conn)) == 3
    assert conn.execute("SELECT max(seals) FROM queue.hours").fetchone() == (1,)
    assert conn.execute("SELECT sum(accepted) FROM account.funnel").fetchone() == (1,)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_hours_are_utc_in_every_session(database_url: str, conn: Conn, tenant: TenantId, zone: str) -> None:
    """Zones with half-hour offsets and days of 23 and 25 hours: none moves an hour or a day."""
    with psycopg.connect(database_url, autocommit=True) as local:
        local.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
        for number in range(48):
            local.execute("SELECT queue.open_hour(%s)", (datetime(2026, 3, 28, tzinfo=UTC) + number * _HOUR,))
        received_at = accept_one(local, tenant)
    assert conn.execute("SELECT count(*) FROM queue.hours WHERE hour < '2026-03-30Z'").fetchone() == (48,)
    found = conn.execute("SELECT hour FROM account.funnel").fetchall()
    assert found == [(hour_of(received_at.astimezone(UTC)),)]


def sealed(conn: Conn) -> list[datetime]:
    return [hour for (hour,) in conn.execute("SELECT hour FROM queue.hours WHERE sealed_at IS NOT NULL ORDER BY 1")]


def count(conn: Conn, table: str, hour: datetime) -> int:
    query = f"SELECT count(*) FROM {table} WHERE received_at >= %s AND received_at < %s"
    row = conn.execute(query.encode(), (hour, hour + _HOUR)).fetchone()
    assert row
    return row[0]
