"""Causes of alerts in a migration."""

from datetime import UTC, datetime, timedelta

from pipeline_platform.migration.cutover.phases import Phase
from pipeline_platform.migration.cutover.transition import back
from pipeline_platform.migration.reconcile.compare import reconcile
from pipeline_platform_tests.support.causes.world import Ended, World
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle


def drift(world: World) -> Ended:
    """The old pipeline dropped three of ten events."""
    open_epoch(world.conn, "shadow")
    ids = world.accept(world.tenant, 10)
    world.deliver()
    legacy_has(world.conn, ids[:7])
    settle(world.conn)
    now = datetime.now(UTC)
    window = now - timedelta(minutes=5), now
    reconcile(world.conn, *window)
    yield
    legacy_has(world.conn, ids[7:])
    reconcile(world.conn, *window)


def anomaly(world: World) -> Ended:
    """After the cutover the mirror loses an event on its way to the old pipeline."""
    tenant = world.tenant
    open_epoch(world.conn, "platform_primary")
    world.conn.execute("INSERT INTO legacy.losses VALUES (%s, gen_random_uuid(), 'mirror', 'unreachable')", (tenant,))
    yield
    back(world.conn, Phase.PLATFORM_PRIMARY, reason="a test")


def late_mirror(world: World) -> Ended:
    """An event of a migration, and no mirror runs."""
    open_epoch(world.conn, "shadow")
    world.accept(world.tenant, 1)
    world.deliver()
    yield
    settle(world.conn)
