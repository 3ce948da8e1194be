"""Causes of alerts in hours: they cannot be opened, sealed, archived, dropped or replayed."""

from datetime import UTC, datetime, timedelta

from pipeline_platform.archive.hours import archive_hours, due_hours
from pipeline_platform.db import connect, queries
from pipeline_platform.queue.keeper import open_partitions, seal_due_hours
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform_tests.support.causes.world import Ended, World
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import working


def no_partitions(world: World) -> Ended:
    """An event was accepted, and no keeper makes hours ahead."""
    world.accept(world.tenant, 1)
    world.deliver()
    yield
    open_partitions(world.conn)


def unarchived(world: World) -> Ended:
    """Where archives are kept there is a file in the way."""
    (hour,) = past_hours(1)
    plant(world.conn, world.tenant, hour, 3)
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
    for _ in range(5):
        with connect(world.settings.database_url, "worker 1 work") as dying:
            assert dying.execute(queries("replay_chunk")["take"]).fetchone()
    with working(world.settings) as workers:
        paused_now = "SELECT is_paused FROM replay.replays"
        living = workers.replaying
        wait_for("the pause", lambda: living.step() == 0 and world.conn.execute(paused_now).fetchone() == (True,))
    yield
    steps.set_paused(world.conn, replay, is_paused=False)


def held_hours(world: World) -> Ended:
    """A diff that nobody works on, of an hour that was sealed longer ago than its retention."""
    [hour] = past_hours(1)
    plant(world.conn, world.tenant, hour, 3)
    world.deliver()
    replay = make_plan(world.conn, Scope(hour, hour + timedelta(hours=1)), "a test").replay_id
    steps.start_diff(world.conn, replay)
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '80 hours' WHERE hour = %s", (hour,))
    yield
    steps.cancel(world.conn, replay)


def stepped_clock(world: World) -> Ended:
    """A clock that was an hour ahead when an hour was sealed, and is right again: events are put into the next one."""
    world.conn.execute("UPDATE queue.hours SET sealed_at = now(), seals = 1 WHERE hour <= now()")
    world.accept(world.tenant, 1)
    world.deliver()
    yield
    # Time passes: what lay ahead lies behind.
    world.conn.execute("UPDATE account.deltas SET hour = hour - interval '1 hour'")


def unsealed(world: World) -> Ended:
    """A session that has held an hour for writing for hours."""
    hour = past_hours(4)[0]
    world.conn.execute("SELECT queue.open_hour(%s)", (hour,))
    with connect(world.settings.database_url, "a forgotten import") as writing:
        writing.execute("SELECT pg_advisory_lock_shared(queue.hour_lock(%s))", (hour,))
        seal_due_hours(world.conn)
        yield
    wait_for("the hour to be sealed", lambda: world.conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone()[0])  # pyright: ignore[reportOptionalSubscript]
