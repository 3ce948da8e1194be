"""Workers in the test's own process: the engine and the lanes of retries and replays, on one connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from pipeline_platform.db import connect
from pipeline_platform.event.types import Lane
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING, Engine, Processed
from pipeline_platform.worker.replay_lane import Replaying
from pipeline_platform.worker.retry_lane import redeliver
from pipeline_platform.worker.transform import Transform

_BATCHES_AT_ONCE = 100


class Died(BaseException):
    """Stands for the worker's SIGKILL: its transaction is rolled back."""


class Workers:
    """Does what is asked for, and nothing of its own accord."""

    def __init__(self, settings: Settings, conn: psycopg.Connection[Any], lookups: Lookups) -> None:
        self.settings, self.conn, self.lookups = settings, conn, lookups
        self.engine = Engine(settings, conn, lookups)
        self.replaying = Replaying(conn, lookups)

    def step(self, lane: Lane = Lane.LIVE) -> Processed:
        """One claim of a lane."""
        return _step(self.engine, lane)

    def drain(self, transform: Transform | None = None) -> None:
        """Process everything that was accepted. transform: another one than the platform's own."""
        engine = Engine(self.settings, self.conn, self.lookups, transform=transform) if transform else self.engine
        for lane in (Lane.LIVE, Lane.OVERFLOW):
            while _step(engine, lane).claimed:
                pass

    def redeliver(self) -> Processed:
        """Try the dead letters that are due, once."""
        return redeliver(self.settings, self.conn, self.lookups)

    def replay(self) -> None:
        """Do all that replays have to do now."""
        while self.replaying.step():
            pass


def _step(engine: Engine, lane: Lane) -> Processed:
    return engine.step(lambda conn: claim(conn, lane, _BATCHES_AT_ONCE, 0))


@contextmanager
def working(settings: Settings) -> Iterator[Workers]:
    """Workers on the servers of `settings`."""
    lookups = Lookups(settings, settings.redis_url)
    try:
        with connect(settings.database_url, "test worker", more=PLANNING) as conn:
            yield Workers(settings, conn, lookups)
    finally:
        lookups.close()


def drain(settings: Settings, transform: Transform | None = None) -> None:
    """Process everything that was accepted."""
    with working(settings) as workers:
        workers.drain(transform)
