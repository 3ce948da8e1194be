"""Causes of alerts in Dagster: runs and sensors that fail, or report nothing."""

from collections.abc import Callable

import dagster as dg

from pipeline_platform.defs.operations.alerts import sensor_reports
from pipeline_platform.defs.operations.run_failures import failed_runs
from pipeline_platform.defs.resources import Platform
from pipeline_platform_tests.support.causes.world import Ended, World
from pipeline_platform_tests.support.waiting import wait_for


@dg.op(config_schema={"broken": bool})
def breakable(context: dg.OpExecutionContext) -> None:
    """Fails where it is told to."""
    if context.op_config["broken"]:
        raise RuntimeError("broken")


@dg.job(executor_def=dg.in_process_executor)
def breakable_job() -> None:
    breakable()


def failed_run(world: World) -> Ended:
    """A run of a job on a real instance, and the sensor's ticks."""
    instance: dg.DagsterInstance = world.request.getfixturevalue("instance")
    tick = _ticker(world, instance, failed_runs)

    def run(*, broken: bool) -> bool:
        config = {"ops": {"breakable": {"config": {"broken": broken}}}}
        return breakable_job.execute_in_process(config, instance=instance, raise_on_error=False).success

    tick()
    assert not run(broken=True)
    tick()
    yield
    assert run(broken=False)
    tick()


def failed_sensor(world: World) -> Ended:
    """A sensor that raises, ticked by a real daemon."""
    instance: dg.DagsterInstance = world.request.getfixturevalue("instance")
    daemon = world.request.getfixturevalue("moody_daemon")
    tick = _ticker(world, instance, sensor_reports)
    reports = "SELECT count(*) FROM control.sensor_ticks WHERE name = 'moody' AND (error IS NOT NULL) = %s"

    def reported(failing: bool) -> bool:
        tick()
        return world.conn.execute(reports, (failing,)).fetchone() == (1,)

    wait_for("the sensor to fail", lambda: reported(failing=True), 90)
    yield
    daemon.cheer_up()
    wait_for("the sensor to tick", lambda: reported(failing=False), 90)


def silent_sensor(world: World) -> Ended:
    """Dagster reported once, and then no more."""
    tick = _ticker(world, world.request.getfixturevalue("instance"), sensor_reports)
    tick()
    yield
    world.restart(alert_sensor_silent_s=3600.0)
    tick()


def _ticker(world: World, instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> Callable[[], None]:
    cursor: str | None = None
    platform = Platform(database_url=world.settings.database_url, redis_url=world.settings.redis_url)

    def tick() -> None:
        nonlocal cursor
        resources = {"platform": platform}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            cursor = sensor.evaluate_tick(context).cursor

    return tick
