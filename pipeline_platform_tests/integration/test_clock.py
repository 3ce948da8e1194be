"""The database's clock may be stepped: nothing waits for it, nothing is dropped early, and an alert says so.

The clock of the tests' server cannot be set. What was stored before a step is moved instead, which is the same.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.event.types import Lane, TenantId
from pipeline_platform.queue.batches import claim
from pipeline_platform.queue.keeper import Keeper, drop_old_hours
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.conditions import look_at
from pipeline_platform_tests.support.queue import accept_ids

Conn = psycopg.Connection[Any]


def clock_alerts(conn: Conn, settings: Settings) -> list[str]:
    return [found.message for found in look_at(conn, settings) if found.kind == "clock_stepped"]


def step_forward(conn: Conn, hours: int) -> None:
    """As if the clock had been stepped: all that was noted by it lies further back."""
    by = timedelta(hours=hours)
    conn.execute("UPDATE queue.hours SET sealed_at = sealed_at - %s", (by,))
    conn.execute("UPDATE analytics.key_generations SET opened_at = opened_at - %(by)s, closed_at = closed_at - %(by)s",
                 {"by": by})  # fmt: skip
    conn.execute("UPDATE queue.clock SET seen_at = seen_at - %s", (by,))
    conn.execute(
        "UPDATE queue.clock_steps SET before_at = before_at - %(by)s, noted_at = noted_at - %(by)s", {"by": by}
    )


def sealed_hours(conn: Conn, hours: int) -> None:
    """The last hours, sealed as they ended; and the keys of a day ago, closed when the present ones were opened."""
    conn.execute(
        "SELECT queue.open_hour(date_trunc('hour', now(), 'UTC') - n * interval '1 hour')"
        " FROM generate_series(1, %s) AS n",
        (hours,),
    )
    conn.execute(
        "UPDATE queue.hours SET sealed_at = hour + interval '1 hour', seals = 1 WHERE hour + interval '1 hour' < now()"
    )
    conn.execute("SELECT analytics.rotate_keys('0', '72 hours')")


def left(conn: Conn) -> tuple[int, int]:
    """Hours and generations of keys that are there."""
    row = conn.execute(
        "SELECT (SELECT count(*) FROM queue.hours WHERE dropped_at IS NULL AND sealed_at IS NOT NULL),"
        " (SELECT count(*) FROM analytics.key_generations WHERE generation = 1)"
    ).fetchone()
    assert row
    return row


def test_events_that_lie_ahead_of_the_clock_are_claimed_at_once(
    conn: Conn, settings: Settings, tenant: TenantId
) -> None:
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    conn.execute("UPDATE queue.hours SET sealed_at = now(), seals = 1 WHERE hour = %s", (this_hour,))
    accept_ids(conn, tenant, [uuid.uuid4()])
    assert conn.execute("SELECT received_at > clock_timestamp() FROM queue.work").fetchone() == (True,)
    for waited_s in (0.0, 0.02, 3600.0):
        with conn.transaction(force_rollback=True):
            assert len(claim(conn, Lane.LIVE, 10, 0, waited_s=waited_s)) == 1
    (message,) = clock_alerts(conn, settings)
    assert "which lies ahead of the clock" in message


def test_a_helper_leaves_to_the_first_worker_what_has_just_come(conn: Conn, tenant: TenantId) -> None:
    accept_ids(conn, tenant, [uuid.uuid4()])
    assert claim(conn, Lane.LIVE, 10, 0, waited_s=3600.0) == []


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_step_over_the_retention_drops_nothing_before_the_retention_has_passed(
    conn: Conn, settings: Settings, *, is_watched: bool
) -> None:
    keeper = Keeper(settings)
    sealed_hours(conn, 3)
    keeper.tick(conn)
    assert left(conn) == (3, 1)
    step_forward(conn, 100)
    # A keeper that ran all the time, or one that was started after the machine.
    keeper = keeper if is_watched else Keeper(settings)
    keeper.tick(conn)
    assert left(conn) == (3, 1)
    (message,) = clock_alerts(conn, settings)
    assert ("clock moved by 4 days" if is_watched else "no keeper ran for 4 days") in message
    refused = drop_old_hours(conn, settings.retention)
    assert len(refused) == 3 and all("the clock moved by" in why for why in refused.values())

    step = "UPDATE queue.clock SET seen_at = now()"
    step_forward(conn, 60)
    conn.execute(step)
    Keeper(settings).tick(conn)
    assert left(conn) == (3, 1), "60 hours that passed are not enough"
    assert clock_alerts(conn, settings) == []
    step_forward(conn, 25)
    conn.execute(step)
    assert drop_old_hours(conn, settings.retention) == {}
    Keeper(settings).tick(conn)
    assert left(conn) == (0, 0)


def test_a_step_that_was_taken_back_leaves_the_retention_as_it_is(conn: Conn, settings: Settings) -> None:
    keeper = Keeper(settings)
    sealed_hours(conn, 3)
    keeper.tick(conn)
    for hours in (100, -100):
        step_forward(conn, hours)
        keeper.tick(conn)
    assert conn.execute("SELECT count(*) FROM queue.clock_steps").fetchone() == (2,)
    (message,) = clock_alerts(conn, settings)
    assert "-" in message
    row = conn.execute("SELECT max(queue.unwatched_since(sealed_at)) FROM queue.hours").fetchone()
    assert row and row[0] < timedelta(minutes=2)


def test_a_retention_without_a_step_drops(conn: Conn, settings: Settings) -> None:
    """The control: time passed, and a keeper watched it."""
    sealed_hours(conn, 3)
    Keeper(settings).tick(conn)
    step_forward(conn, 100)
    conn.execute("UPDATE queue.clock SET seen_at = now()")
    assert drop_old_hours(conn, settings.retention) == {}
    Keeper(settings).tick(conn)
    assert left(conn) == (0, 0)
    assert clock_alerts(conn, settings) == []
