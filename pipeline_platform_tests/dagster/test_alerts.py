"""Alerts in Dagster: failed runs by backfill, without those that are started again; what the sensors say and report."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType

from pipeline_platform.definitions import build_defs
from pipeline_platform.defs.hours import HOURS, key_of
from pipeline_platform.defs.operations.alerts import open_alerts, sensor_reports
from pipeline_platform.defs.operations.run_failures import failed_runs
from pipeline_platform.defs.resources import Platform
from pipeline_platform_tests.support.planting import past_hours

Conn = psycopg.Connection[Any]
Tick = Callable[[], str]
_ALERTS = "SELECT fingerprint, occurrences, resolved_at IS NOT NULL FROM control.alerts ORDER BY alert_id"


@dg.op(config_schema={"broken": bool})
def breakable(context: dg.OpExecutionContext) -> None:
    """Fails where it is told to."""
    if context.op_config["broken"]:
        raise RuntimeError("broken")


@dg.job(executor_def=dg.in_process_executor, partitions_def=HOURS)
def hourly() -> None:
    breakable()


@pytest.fixture
def ticks(instance: dg.DagsterInstance, platform: Platform) -> Callable[[dg.SensorDefinition], Tick]:
    """Ticks of one sensor, one after the other, as the daemon makes them: each says why it skipped."""

    def of(sensor: dg.SensorDefinition) -> Tick:
        cursor: str | None = None

        def tick() -> str:
            nonlocal cursor
            resources = {"platform": platform}
            with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
                data = sensor.evaluate_tick(context)
            cursor = data.cursor
            return data.skip_message or ""

        return tick

    return of


@pytest.fixture
def run(instance: dg.DagsterInstance) -> Callable[..., str]:
    """Runs the job for a partition; returns the run's id."""

    def run(partition: str, *, broken: bool, **tags: str) -> str:
        config = {"ops": {"breakable": {"config": {"broken": broken}}}}
        names = {name.replace("__", "/"): value for name, value in tags.items()}
        done = hourly.execute_in_process(
            config, instance=instance, raise_on_error=False, partition_key=partition, tags=names
        )
        assert done.success is not broken
        return done.run_id

    return run


def test_the_failures_of_a_backfill_are_one_alert_until_all_are_made_good(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], run: Callable[..., str]
) -> None:
    tick = ticks(failed_runs)
    tick()
    first, second, third = (key_of(hour) for hour in past_hours(3))
    backfill = {"dagster__backfill": "abcdefgh"}
    run(first, broken=True, **backfill)
    run(second, broken=True, **backfill)
    assert tick().startswith("2 runs failed since the last tick (backfill abcdefgh)")
    assert conn.execute(_ALERTS).fetchall() == [("backfill abcdefgh", 2, False)]
    run(third, broken=False)
    run(first, broken=False)
    tick()
    assert conn.execute(_ALERTS).fetchall() == [("backfill abcdefgh", 2, False)]
    run(second, broken=False)
    assert tick().endswith("1 alerts are over")
    assert conn.execute(_ALERTS).fetchall() == [("backfill abcdefgh", 2, True)]
    assert tick().startswith("0 runs failed")


def test_a_run_that_is_started_again_by_itself_is_no_alert_yet(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], run: Callable[..., str], instance: dg.DagsterInstance
) -> None:
    tick = ticks(failed_runs)
    tick()
    (hour,) = past_hours(1)
    retried = run(key_of(hour), broken=True)
    instance.add_run_tags(retried, {"dagster/will_retry": "true"})
    assert tick().startswith("0 runs failed")
    run(key_of(hour), broken=True)
    tick()
    assert conn.execute(_ALERTS).fetchall() == [("hourly", 1, False)]


def test_what_failed_before_the_first_tick_is_history(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], run: Callable[..., str]
) -> None:
    (hour,) = past_hours(1)
    run(key_of(hour), broken=True)
    tick = ticks(failed_runs)
    tick()
    tick()
    assert conn.execute(_ALERTS).fetchall() == []


def test_the_sensor_looks_too_and_says_what_is_new_once(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick]
) -> None:
    tick = ticks(open_alerts)
    assert tick() == "0 alerts are open"
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    assert "1 alerts are open, 1 of them new: Partitions run out, the platform" in tick()
    assert tick() == "1 alerts are open"


def test_the_report_names_what_is_on(conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick]) -> None:
    conn.execute("INSERT INTO control.sensor_ticks (name, error) VALUES ('gone', 'it failed once')")
    assert ticks(sensor_reports)() == "1 sensors and schedules are on; failing: none"
    assert conn.execute("SELECT name, error FROM control.sensor_ticks").fetchall() == [("sensor_reports", None)]


def test_a_sensor_that_the_code_has_no_longer_is_not_reported(
    conn: Conn, platform: Platform, instance: dg.DagsterInstance
) -> None:
    repository = build_defs().get_repository_def()
    for name in ("renamed", "sealed_hours", "hourly_retention"):
        origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__").get_instigator_origin(
            name
        )
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING))
    with dg.build_sensor_context(
        instance=instance, repository_def=repository, resources={"platform": platform}, sensor_name="sensor_reports"
    ) as context:
        sensor_reports.evaluate_tick(context)
    names = conn.execute("SELECT name FROM control.sensor_ticks ORDER BY name").fetchall()
    assert names == [("hourly_retention",), ("sealed_hours",), ("sensor_reports",)]


def test_the_reporter_is_one_of_the_sensors() -> None:
    names = {sensor.name for sensor in build_defs().get_repository_def().sensor_defs}
    assert {"sensor_reports", "failed_runs", "open_alerts"} <= names
