"""Causes of alerts in what the platform runs on: PostgreSQL, its sessions and disk, and where alerts are sent."""

from contextlib import ExitStack

import psycopg

from pipeline_platform.db import connect
from pipeline_platform.queue.keeper import LOCK_TIMEOUT_S, Keeper
from pipeline_platform_tests.support.causes.world import Ended, World
from pipeline_platform_tests.support.servers import OwnServer
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.webhook import Webhook


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
