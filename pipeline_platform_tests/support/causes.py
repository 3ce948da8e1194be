"""The real cause of each kind of alert: a generator makes it, yields while it lasts, and ends it."""

import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.archive.hours import archive_hours, due_hours
from pipeline_platform.db import connect, queries
from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.dead_letters.circuit_switch import close_circuit
from pipeline_platform.dead_letters.operations import Filter, discard
from pipeline_platform.defs.alerts import sensor_reports
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.run_failures import failed_runs
from pipeline_platform.defs.stuck_runs import stuck_runs
from pipeline_platform.event.types import Lane, RejectedEvent, TenantId
from pipeline_platform.lookups import Lookups
from pipeline_platform.migration.cutover.transition import back
from pipeline_platform.migration.reconcile.compare import reconcile
from pipeline_platform.queue.batches import accept_params, claim
from pipeline_platform.queue.keeper import LOCK_TIMEOUT_S, Keeper, open_partitions, seal_due_hours
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Kind
from pipeline_platform.worker.engine import PLANNING, Engine
from pipeline_platform.worker.replay_lane import Replaying
from pipeline_platform_tests.dagster.planting import past_hours, plant
from pipeline_platform_tests.support.ledger import add_tenants
from pipeline_platform_tests.support.legacy import turn
from pipeline_platform_tests.support.migration import accept, deliver_all, old_pipeline_has, settle
from pipeline_platform_tests.support.platform import Platform as Processes
from pipeline_platform_tests.support.servers import OwnServer
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.webhook import Webhook

Conn = psycopg.Connection[Any]
Ended = Generator[None]


@dataclass(slots=True)
class World:
    """A platform with two tenants, whose alerts are looked for and delivered while the cause lasts."""

    settings: Settings
    conn: Conn
    request: pytest.FixtureRequest
    restart: Callable[..., None]
    dead_url: str = ""

    @property
    def tenant(self) -> int:
        return add_tenants(self.conn, "acme")[0].tenant_id

    def accept(self, tenant: int, events: int, **properties: Any) -> list[uuid.UUID]:
        ids = sorted(uuid.uuid4() for _ in range(events))
        accept(self.conn, tenant, ids, **properties)
        return ids

    def deliver(self) -> None:
        deliver_all(self.settings)

    def discard(self) -> None:
        discard(self.conn, Filter(), "a test")


# PostgreSQL stores no text that holds it: found out by the load.
_UNLOADABLE = {"a": "\0"}


def exhausted(world: World) -> Ended:
    """An event that cannot be written, tried as often as it is tried."""
    world.accept(world.tenant, 3, **_UNLOADABLE)
    world.deliver()
    yield
    world.discard()


def unbalanced(world: World) -> Ended:
    """A counter altered behind the account's back."""
    world.accept(world.tenant, 3)
    world.deliver()
    world.conn.execute("SELECT account.fold()")
    world.conn.execute("UPDATE account.counters SET delivered = delivered + 1")
    yield
    world.conn.execute("UPDATE account.counters SET delivered = delivered - 1")


def rate_low(world: World) -> Ended:
    """One of 21 events cannot be written."""
    tenant = world.tenant
    world.accept(tenant, 20)
    world.accept(tenant, 1, **_UNLOADABLE)
    world.deliver()
    yield
    world.discard()


def waiting(world: World) -> Ended:
    """Events, and nobody who processes them."""
    world.accept(world.tenant, 3)
    yield
    world.deliver()


def slow(world: World) -> Ended:
    """Events of two windows that took longer than the objective; nothing ends it but time."""
    tenant = world.tenant
    world.accept(tenant, 30)
    world.deliver()
    window_s = world.settings.objective_latency_window_s
    age = "SELECT extract(epoch FROM clock_timestamp() - max(received_at))::float8 FROM analytics.events"
    wait_for("the next window", lambda: world.conn.execute(age).fetchall()[0][0] > window_s)
    world.accept(tenant, 30)
    world.deliver()
    yield


def circuit(world: World) -> Ended:
    """A worker that sees nothing but dead letters, of three tenants."""
    for tenant in add_tenants(world.conn, "a", "b", "c"):
        world.accept(tenant.tenant_id, 100, **_UNLOADABLE)
    seen, lookups = Circuit(world.settings), Lookups(world.settings, world.settings.redis_url)
    with connect(world.settings.database_url, "test", more=PLANNING) as conn:
        Engine(world.settings, conn, lookups, seen).step(lambda own: claim(own, Lane.LIVE, 10, 0))
        lookups.close()
        assert seen.look(conn)
    yield
    close_circuit(world.conn, "a test")


def drift(world: World) -> Ended:
    """The old pipeline dropped three of ten events."""
    turn(world.conn, "shadow")
    ids = world.accept(world.tenant, 10)
    world.deliver()
    old_pipeline_has(world.conn, ids[:7])
    settle(world.conn)
    now = datetime.now(UTC)
    window = now - timedelta(minutes=5), now
    reconcile(world.conn, *window)
    yield
    old_pipeline_has(world.conn, ids[7:])
    reconcile(world.conn, *window)


def anomaly(world: World) -> Ended:
    """After the cutover the mirror loses an event on its way to the old pipeline."""
    tenant = world.tenant
    turn(world.conn, "platform_primary")
    world.conn.execute("INSERT INTO legacy.losses VALUES (%s, gen_random_uuid(), 'mirror', 'unreachable')", (tenant,))
    yield
    back(world.conn, world.settings, reason="a test")


def old_transaction(world: World) -> Ended:
    """Somebody began and went away."""
    with psycopg.connect(world.settings.database_url, application_name="a notebook") as conn:
        conn.execute("SELECT 1")
        yield
        conn.rollback()


def full_disk(world: World) -> Ended:
    """Less is free than the setting asks for, until it asks for less."""
    yield
    world.restart(alert_disk_free_bytes_min=0)


def no_partitions(world: World) -> Ended:
    """An event was accepted, and no keeper makes hours ahead."""
    world.accept(world.tenant, 1)
    world.deliver()
    yield
    open_partitions(world.conn)


def unarchived(world: World) -> Ended:
    """Where archives are kept there is a file in the way."""
    (hour,) = past_hours(1)
    plant(world.conn, world.tenant, hour, 3)  # pyright: ignore[reportArgumentType]
    world.deliver()
    seal_due_hours(world.conn)
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '100 hours' WHERE sealed_at IS NOT NULL")
    place = world.settings.home / "archive"
    place.write_text("no directory")
    settings = world.settings.model_copy(update={"archive_url": str(place)})
    assert [one.error for one in archive_hours(world.conn, settings, due_hours(world.conn, settings)) if one.error]
    yield
    place.unlink()
    assert not [one.error for one in archive_hours(world.conn, settings, due_hours(world.conn, settings)) if one.error]


def paused(world: World) -> Ended:
    """A chunk of a replay whose workers die of it: each took it, and its connection ended."""
    world.accept(world.tenant, 3)
    world.deliver()
    now = datetime.now(UTC)
    start = now.replace(minute=0, second=0, microsecond=0)
    replay = make_plan(world.conn, Scope(start, start + timedelta(hours=1), None, None, False), "a test").replay_id
    steps.start_diff(world.conn, replay)
    lookups = Lookups(world.settings, world.settings.redis_url)
    for _ in range(5):
        with connect(world.settings.database_url, "worker 1 work") as dying:
            assert dying.execute(queries("replay_chunk")["take"]).fetchone()
    with connect(world.settings.database_url, "worker 1 work") as conn:
        paused_now = "SELECT is_paused FROM replay.replays"
        living = Replaying(conn, lookups)
        wait_for("the pause", lambda: living.step() == 0 and world.conn.execute(paused_now).fetchone() == (True,))
    lookups.close()
    yield
    steps.set_paused(world.conn, replay, is_paused=False)


def held_hours(world: World) -> Ended:
    """A diff that nobody works on, of an hour that was sealed longer ago than its retention."""
    [hour] = past_hours(1)
    plant(world.conn, TenantId(world.tenant), hour, 3)
    world.deliver()
    replay = make_plan(world.conn, Scope(hour, hour + timedelta(hours=1)), "a test").replay_id
    steps.start_diff(world.conn, replay)
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '80 hours' WHERE hour = %s", (hour,))
    yield
    steps.cancel(world.conn, replay)


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


def stuck_run(world: World) -> Ended:
    """A run that is STARTED and has no process, and the sensor's ticks."""
    instance: dg.DagsterInstance = world.request.getfixturevalue("instance")
    tick = _ticker(world, instance, stuck_runs)
    config = {"ops": {"breakable": {"config": {"broken": False}}}}
    lost = instance.create_run_for_job(breakable_job, run_config=config, status=dg.DagsterRunStatus.STARTED)
    tick()
    tick()
    yield
    instance.report_run_canceled(lost)
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


def dead_channel(world: World) -> Ended:
    """Something is to be told, and the second channel's server is away."""
    with ExitStack() as stack:
        conn = stack.enter_context(psycopg.connect(world.settings.database_url))
        conn.execute("SELECT 1")
        yield
        stack.enter_context(Webhook(0, port=int(world.dead_url.split(":")[-1].strip("/"))))
        row = "SELECT count(*) FROM control.alert_channels WHERE failures > 0"
        wait_for("the channel to answer", lambda: world.conn.execute(row).fetchone() == (0,))
        conn.rollback()


def away(world: World) -> Ended:
    """PostgreSQL is stopped, and started again."""
    server: OwnServer = world.request.getfixturevalue("mortal_postgres")
    server.stop()
    yield
    server.start()


def stepped_clock(world: World) -> Ended:
    """A clock that was an hour ahead when an hour was sealed, and is right again: events are put into the next one."""
    world.conn.execute("UPDATE queue.hours SET sealed_at = now(), seals = 1 WHERE hour <= now()")
    world.accept(world.tenant, 1)
    world.deliver()
    yield
    # Time passes: what lay ahead lies behind.
    world.conn.execute("UPDATE account.deltas SET hour = hour - interval '1 hour'")


def late_chore(world: World) -> Ended:
    """Somebody holds the lock that a chore needs, for longer than it may be late."""
    keeper, late = Keeper(world.settings), "UPDATE queue.chores SET late_after = '1 ms' WHERE name = 'fold'"
    with (
        psycopg.connect(world.settings.database_url) as blocking,
        connect(world.settings.database_url, "keeper", lock_timeout_s=LOCK_TIMEOUT_S) as conn,
    ):
        keeper.tick(conn)
        blocking.execute("SELECT pg_advisory_xact_lock(hashtext('account.fold'))")
        keeper.tick(conn)
        world.conn.execute(late)
        yield
        blocking.rollback()
        keeper.tick(conn)


def unsealed(world: World) -> Ended:
    """A session that has held an hour for writing for hours."""
    hour = past_hours(4)[0]
    world.conn.execute("SELECT queue.open_hour(%s)", (hour,))
    with connect(world.settings.database_url, "a forgotten import") as writing:
        writing.execute("SELECT pg_advisory_lock_shared(queue.hour_lock(%s))", (hour,))
        seal_due_hours(world.conn)
        yield
    wait_for("the hour to be sealed", lambda: world.conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone()[0])  # pyright: ignore[reportOptionalSubscript]


def crashing(world: World) -> Ended:
    """Workers that end as soon as they are started, each replaced by its pool."""
    place = world.settings.home / "crashing"
    place.mkdir()
    (place / "sitecustomize.py").write_text("import os, sys\nif '--slot' in sys.orig_argv:\n    os._exit(3)\n")
    with Processes(world.settings) as platform:
        platform.start_crashing_workers(place)
        deaths = "SELECT count(*) >= 5 FROM queue.worker_deaths"
        wait_for("five deaths", lambda: world.conn.execute(deaths).fetchone() == (True,), 120)
    yield
    world.conn.execute("UPDATE queue.worker_deaths SET died_at = died_at - interval '1 hour'")


def rejected(world: World) -> Ended:
    """A tenant sends as many events that are none as events, and then good ones."""
    tenant = TenantId(world.tenant)
    refused = [RejectedEvent(tenant, None, "missing_field", "userId is missing", b"{}") for _ in range(10)]
    world.conn.execute(queries("queue")["accept"], accept_params(Lane.LIVE, [], refused))
    world.accept(tenant, 10)
    yield
    world.accept(tenant, 200)
    world.deliver()


def late_mirror(world: World) -> Ended:
    """An event of a migration, and no mirror runs."""
    turn(world.conn, "shadow")
    world.accept(world.tenant, 1)
    world.deliver()
    yield
    settle(world.conn)


@dataclass(frozen=True, slots=True)
class Cause:
    """How to provoke a kind, with which settings."""

    provoke: Callable[[World], Ended]
    settings: dict[str, Any]


CAUSES = {
    Kind.DEAD_LETTER_EXHAUSTED: Cause(exhausted, {"attempts_max": 1}),
    Kind.ACCOUNT_UNBALANCED: Cause(unbalanced, {}),
    Kind.DELIVERY_RATE_LOW: Cause(rate_low, {"objective_events_min": 10}),
    Kind.LAG_HIGH: Cause(waiting, {"objective_lag_s": 0.5}),
    Kind.QUEUE_STOPPED: Cause(waiting, {"alert_queue_stopped_s": 0.5}),
    Kind.LATENCY_HIGH: Cause(
        slow,
        {"objective_latency_p95_ms": 0.01, "objective_latency_window_s": 2.0, "objective_latency_windows": 2},
    ),
    Kind.CIRCUIT_OPEN: Cause(circuit, {}),
    Kind.DRIFT_FOUND: Cause(drift, {}),
    Kind.CUTOVER_ANOMALY: Cause(anomaly, {}),
    Kind.TRANSACTION_OLD: Cause(old_transaction, {"alert_transaction_age_s": 0.5}),
    Kind.DISK_LOW: Cause(full_disk, {"alert_disk_free_bytes_min": 1 << 62}),
    Kind.PARTITIONS_LOW: Cause(no_partitions, {}),
    Kind.ARCHIVE_FAILED: Cause(unarchived, {}),
    Kind.REPLAY_PAUSED: Cause(paused, {}),
    Kind.DAGSTER_RUN_FAILED: Cause(failed_run, {}),
    Kind.DAGSTER_STUCK: Cause(stuck_run, {}),
    Kind.SENSOR_FAILED: Cause(failed_sensor, {}),
    Kind.SENSOR_SILENT: Cause(silent_sensor, {"alert_sensor_silent_s": 0.5}),
    Kind.CHANNEL_DOWN: Cause(dead_channel, {"alert_channel_down_s": 3.0, "alert_transaction_age_s": 0.2}),
    Kind.DATABASE_AWAY: Cause(away, {"alert_database_away_s": 0.5}),
    Kind.CLOCK_STEPPED: Cause(stepped_clock, {}),
    Kind.CHORE_LATE: Cause(late_chore, {}),
    Kind.HOURS_OVERDUE: Cause(unsealed, {}),
    Kind.WORKERS_CRASHING: Cause(crashing, {}),
    Kind.REJECTED_HIGH: Cause(rejected, {"objective_events_min": 10}),
    Kind.MIRROR_LAG_HIGH: Cause(late_mirror, {"alert_mirror_lag_s": 0.5}),
    Kind.REPLAY_HOLDS_HOURS: Cause(held_hours, {}),
}
