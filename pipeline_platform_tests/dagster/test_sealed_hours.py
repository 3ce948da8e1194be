"""The sensor on a real instance: what it asks for, how much of it at once, and what it says when there is nothing."""

from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.defs.events.sealed_hours import sealed_hours
from pipeline_platform.defs.hours import key_of
from pipeline_platform.defs.resources import Platform
from pipeline_platform_tests.support.planting import open_hour, past_hours

Conn = psycopg.Connection[Any]


class Ticks:
    """Ticks of the sensor, each with the cursor that the one before left."""

    def __init__(self, instance: dg.DagsterInstance, platform: Platform) -> None:
        self._instance = instance
        self._platform = platform
        self.cursor: str | None = None
        self.skipped: str | None = None

    def tick(self) -> list[tuple[str, str]]:
        """The ranges asked for, as their first and last partition."""
        with dg.build_sensor_context(
            instance=self._instance, cursor=self.cursor, resources={"platform": self._platform}
        ) as context:
            result = sealed_hours(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.skipped = result.skip_reason.skip_message if result.skip_reason else None
        self.keys = [request.run_key for request in result.run_requests or []]
        return [
            (
                request.tags["dagster/asset_partition_range_start"],
                request.tags["dagster/asset_partition_range_end"],
            )
            for request in result.run_requests or []
        ]


def seal(conn: Conn, hours: list[datetime]) -> None:
    for hour in hours:
        open_hour(conn, hour)
        row = conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone()
        assert row == (True,)


def span(hours: list[datetime]) -> tuple[str, str]:
    return key_of(hours[0]), key_of(hours[-1])


def test_a_sealed_hour_is_asked_for_once(instance: dg.DagsterInstance, platform: Platform, conn: Conn) -> None:
    ticks, hours = Ticks(instance, platform), past_hours(2)
    open_hour(conn, hours[1])
    assert ticks.tick() == []
    assert ticks.skipped == "no hour was sealed since the last tick; none is sealed yet"

    seal(conn, hours[:1])
    assert ticks.tick() == [span(hours[:1])]
    assert ticks.tick() == []
    assert ticks.skipped == f"no hour was sealed since the last tick; the newest is {key_of(hours[0])}"

    seal(conn, hours[1:])
    assert ticks.tick() == [span(hours[1:])]


def test_many_hours_at_once_are_one_run(instance: dg.DagsterInstance, platform: Platform, conn: Conn) -> None:
    ticks, hours = Ticks(instance, platform), past_hours(73)
    seal(conn, hours)
    assert ticks.tick() == [span(hours)]


def test_gaps_are_ranges_while_they_are_few_and_one_window_when_many(
    instance: dg.DagsterInstance, platform: Platform, conn: Conn
) -> None:
    ticks, hours = Ticks(instance, platform), past_hours(40)
    seal(conn, hours[0:3] + hours[5:6] + hours[8:10])
    assert ticks.tick() == [span(hours[0:3]), span(hours[5:6]), span(hours[8:10])]
    seal(conn, hours[12:36:2])
    assert ticks.tick() == [span(hours[12:35])]


def test_no_range_is_longer_than_a_run_may_take(instance: dg.DagsterInstance, platform: Platform, conn: Conn) -> None:
    ticks, hours = Ticks(instance, platform), past_hours(200)
    seal(conn, hours)
    assert ticks.tick() == [span(hours[:96]), span(hours[96:192]), span(hours[192:])]


def test_an_hour_opened_and_sealed_again_is_asked_for_again(
    instance: dg.DagsterInstance, platform: Platform, conn: Conn
) -> None:
    ticks, hours = Ticks(instance, platform), past_hours(3)
    seal(conn, hours)
    ticks.tick()
    before = ticks.keys
    conn.execute("UPDATE queue.hours SET sealed_at = NULL WHERE hour = %s", (hours[1],))
    assert ticks.tick() == []

    seal(conn, hours[1:2])
    assert ticks.tick() == [span(hours[1:2])]
    assert not set(before) & set(ticks.keys)


def test_hours_that_were_dropped_are_forgotten(instance: dg.DagsterInstance, platform: Platform, conn: Conn) -> None:
    ticks, hours = Ticks(instance, platform), past_hours(3)
    seal(conn, hours)
    ticks.tick()
    conn.execute("SELECT queue.drop_hour(%s, '0')", (hours[0],))
    assert ticks.tick() == []
    assert ticks.cursor == f"{key_of(hours[1])}=1 {key_of(hours[2])}=1"


def test_an_hour_that_dagster_has_no_partition_for_yet_waits(
    instance: dg.DagsterInstance, platform: Platform, conn: Conn
) -> None:
    ticks, last = Ticks(instance, platform), past_hours(1)[0]
    # As where the database's clock is ahead of Dagster's.
    open_hour(conn, last + timedelta(hours=1))
    conn.execute("UPDATE queue.hours SET sealed_at = now(), seals = 1")
    assert ticks.tick() == []
    seal(conn, [last])
    assert ticks.tick() == [span([last])]
