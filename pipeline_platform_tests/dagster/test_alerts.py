"""Alerts in Dagster: failed runs by backfill, without those that are started again; what the sensors say and report."""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType
from dagster._utils.error import SerializableErrorInfo

from pipeline_platform.definitions import build_defs
from pipeline_platform.defs.hours import HOURS, key_of
from pipeline_platform.defs.operations.alerts import open_alerts, sensor_reports
from pipeline_platform.defs.operations.failed_backfills import is_made_good
from pipeline_platform.defs.operations.run_failures import failed_runs
from pipeline_platform.defs.operations.stuck_runs import stuck_runs
from pipeline_platform.defs.resources import Platform
from pipeline_platform.private_dagster import BulkActionStatus, PartitionBackfill
from pipeline_platform_tests.support.planting import past_hours

Conn = psycopg.Connection[Any]
Tick = Callable[[], str]
_ALERTS = "SELECT fingerprint, occurrences, resolved_at IS NOT NULL FROM control.alerts ORDER BY alert_id"

_REPOSITORY = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
_CONFIG = {"ops": {"breakable": {"config": {"broken": True}}}}


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
    assert tick().startswith("2 runs and 0 backfills failed since the last tick (backfill abcdefgh)")
    assert conn.execute(_ALERTS).fetchall() == [("backfill abcdefgh", 2, False)]
    run(third, broken=False)
    run(first, broken=False)
    tick()
    assert conn.execute(_ALERTS).fetchall() == [("backfill abcdefgh", 2, False)]
    run(second, broken=False)
    assert tick().endswith("1 alerts are over")
    assert conn.execute(_ALERTS).fetchall() == [("backfill abcdefgh", 2, True)]
    assert tick().startswith("0 runs and 0 backfills failed")


def test_a_run_that_is_started_again_by_itself_is_no_alert_yet(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], run: Callable[..., str], instance: dg.DagsterInstance
) -> None:
    tick = ticks(failed_runs)
    tick()
    (hour,) = past_hours(1)
    retried = run(key_of(hour), broken=True)
    instance.add_run_tags(retried, {"dagster/will_retry": "true"})
    assert tick().startswith("0 runs and 0 backfills failed")
    run(key_of(hour), broken=True)
    tick()
    assert conn.execute(_ALERTS).fetchall() == [("hourly", 1, False)]


def test_a_success_before_the_failure_does_not_end_its_alert(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], run: Callable[..., str]
) -> None:
    tick = ticks(failed_runs)
    tick()
    (hour,) = past_hours(1)
    run(key_of(hour), broken=False)
    run(key_of(hour), broken=True)
    assert tick().endswith("0 alerts are over")
    assert conn.execute(_ALERTS).fetchall() == [("hourly", 1, False)]
    run(key_of(hour), broken=False)
    assert tick().endswith("1 alerts are over")


def test_a_backfill_that_failed_before_a_run_started_is_an_alert_until_one_like_it_succeeds(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], instance: dg.DagsterInstance
) -> None:
    tick = ticks(failed_runs)
    tick()
    error = SerializableErrorInfo("the assets cannot be loaded\nmore\n", [], None)
    instance.add_backfill(_backfill("failed", BulkActionStatus.FAILED, ["a", "b"], error))
    assert tick().startswith("0 runs and 1 backfills failed since the last tick (backfill failed)")
    assert conn.execute(_ALERTS).fetchall() == [("backfill failed", 1, False)]
    assert conn.execute("SELECT message FROM control.alerts").fetchone() == (
        "backfill failed failed: the assets cannot be loaded",
    )
    instance.add_backfill(_backfill("less", BulkActionStatus.COMPLETED_SUCCESS, ["a"]))
    assert tick().endswith("0 alerts are over")
    instance.add_backfill(_backfill("more", BulkActionStatus.COMPLETED_SUCCESS, ["a", "b", "c"]))
    assert tick().endswith("1 alerts are over")
    assert conn.execute(_ALERTS).fetchall() == [("backfill failed", 1, True)]


def _backfill(
    name: str, status: BulkActionStatus, partitions: list[str], error: SerializableErrorInfo | None = None
) -> PartitionBackfill:
    return PartitionBackfill(
        name,
        status,
        from_failure=False,
        tags={},
        backfill_timestamp=time.time(),
        error=error,
        partition_set_origin=RemotePartitionSetOrigin(
            repository_origin=_REPOSITORY, partition_set_name="hourly_partition_set"
        ),
        partition_names=partitions,
        backfill_end_timestamp=time.time(),
    )


def test_an_asset_backfill_is_made_good_by_a_later_one_over_the_same_assets_and_partitions(
    instance: dg.DagsterInstance,
) -> None:
    graph = build_defs().get_repository_def().asset_graph

    def add(name: str, status: BulkActionStatus, assets: list[str], partitions: list[str]) -> None:
        backfill = PartitionBackfill.from_asset_partitions(
            name, graph, partitions, [dg.AssetKey(asset) for asset in assets], time.time(), {}, instance,
            all_partitions=False, title=None, description=None, run_config=None,
        )  # fmt: skip
        instance.add_backfill(backfill.with_status(status))

    first, second = (key_of(hour) for hour in past_hours(2))
    add("failed", BulkActionStatus.FAILED, ["accepted_events", "enriched_events"], [first, second])
    assert not is_made_good(instance, "failed", graph)
    add("fewer hours", BulkActionStatus.COMPLETED_SUCCESS, ["accepted_events", "enriched_events"], [first])
    add("fewer assets", BulkActionStatus.COMPLETED_SUCCESS, ["accepted_events"], [first, second])
    add("failed too", BulkActionStatus.COMPLETED_FAILED, ["accepted_events", "enriched_events"], [first, second])
    assert not is_made_good(instance, "failed", graph)
    add("the same", BulkActionStatus.COMPLETED_SUCCESS, ["accepted_events", "enriched_events"], [first, second])
    assert is_made_good(instance, "failed", graph)
    assert not is_made_good(instance, "failed", None)
    assert is_made_good(instance, "deleted", graph)


def test_a_run_without_a_process_is_an_alert_when_it_is_seen_twice(
    conn: Conn, ticks: Callable[[dg.SensorDefinition], Tick], instance: dg.DagsterInstance
) -> None:
    tick = ticks(stuck_runs)
    lost = instance.create_run_for_job(hourly, run_config=_CONFIG, status=dg.DagsterRunStatus.STARTED)
    assert f"hourly is STARTED and has no process: run {lost.run_id}" in tick()
    assert conn.execute(_ALERTS).fetchall() == []
    tick()
    assert conn.execute(_ALERTS).fetchall() == [(f"run {lost.run_id}", 1, False)]
    instance.report_run_canceled(lost)
    assert tick() == "no run is stuck"
    assert conn.execute(_ALERTS).fetchall() == [(f"run {lost.run_id}", 1, True)]


def test_a_queue_in_which_nothing_starts_is_an_alert(
    conn: Conn,
    ticks: Callable[[dg.SensorDefinition], Tick],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tick = ticks(stuck_runs)
    origin = RemoteJobOrigin(repository_origin=_REPOSITORY, job_name="hourly")
    queued = instance.create_run_for_job(
        hourly, run_config=_CONFIG, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin
    )
    assert tick() == "no run is stuck"
    monkeypatch.setenv("PIPELINE_ALERT_RUN_WAITS_S", "0.001")
    assert tick().startswith("1 runs of hourly wait, the first since")
    tick()
    assert conn.execute(_ALERTS).fetchall() == [("queue hourly", 1, False)]
    instance.report_run_canceled(queued)
    tick()
    assert conn.execute(_ALERTS).fetchall() == [("queue hourly", 1, True)]


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
