"""Ends servers that a killed owner left behind. Where death signals work, such servers end by themselves."""

from pathlib import Path

from pipeline_platform.local.services.home_files import HomeLock
from pipeline_platform.local.services.postgres import end_left_behind as end_postgres
from pipeline_platform.local.services.redis import end_left_behind as end_redis


def end_orphans(home: Path) -> bool:
    """End the servers of `home` that have no owner; True if there were any. ConfigError if they have one."""
    found = False
    for name, end in (("postgres", end_postgres), ("redis", end_redis)):
        room = home.resolve() / name
        if room.exists():
            with HomeLock(room / "lock"):
                found = end(room) or found
    return found
