"""One worker process: waits until it is woken, claims work and processes it, until it is stopped.

After SIGTERM or SIGINT it finishes the current batch. While PostgreSQL is unreachable it waits and reconnects; no
attempt is counted. When it dies, its transaction is rolled back and the pool starts another. An operator need not act.
"""

import gc
import logging
import random
import select
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from pipeline_platform.db import connect
from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.errors import is_transient
from pipeline_platform.event.types import Lane
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import Work, claim, is_full
from pipeline_platform.queue.claim_notes import ClaimNote
from pipeline_platform.queue.low_water import LowWater
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import WorkerNumbers
from pipeline_platform.telemetry.tracing import Tracer
from pipeline_platform.worker.engine import PLANNING, Engine, Processed
from pipeline_platform.worker.lanes import LaneShares
from pipeline_platform.worker.replay_lane import Replaying
from pipeline_platform.worker.retry_lane import redeliver
from pipeline_platform.worker.suspects import isolate_suspect
from pipeline_platform.worker.traced import TracedEngine
from pipeline_platform.worker.transform import Transform, transform

_LOG = logging.getLogger(__name__)
# Work waits no longer than this if a notification is lost (a gateway dies between its commit and its NOTIFY).
_POLL_S = 0.25
_CHORES_EVERY_S = 0.5
# A query of an empty lane delays a live event by a round trip. The other lanes are queried this often while empty.
_EMPTY_LANE_S = 0.05
_BATCHES_MAX = 256
# Claims of one worker start at least this far apart. At 600 single events a second a claim then takes two or three,
# which leaves the cores to the commits.
_CLAIM_EVERY_S = 0.004
# The first worker serves live events at once. The others take those that have waited this long. At rates that one
# worker can serve, two would make smaller claims, and each claim costs a load and a commit.
_HELP_AFTER_S, _HELP_AFTER_MAX_S = 0.008, 0.02
# The first of several workers leaves replays to the others until this long after a live event.
_KEEP_FREE_S = 0.1
# The wait after a transient error. It is doubled with each error until something succeeds.
_WAIT_S, _WAIT_MAX_S = 0.1, 5.0


def note_path(settings: Settings, slot: int) -> Path:
    """The file in which the worker of a slot notes what it holds."""
    return settings.home / "claims" / f"worker-{slot}"


class Worker:
    """Runs until `stop` is called or its process gets a signal to stop."""

    def __init__(
        self,
        settings: Settings,
        slot: int,
        workers: int,
        tracer: Tracer | None = None,
        transform: Transform = transform,
    ) -> None:
        self._settings = settings
        self._transform = transform
        self._name = f"worker {slot}"
        self._help_after_s = _HELP_AFTER_S if slot > 1 else 0.0
        self._keeps_free = slot == 1 and workers > 1
        self._note = ClaimNote(note_path(settings, slot))
        self._stopping = False
        self._lanes = LaneShares(settings.lane_shares, settings.lane_caps)
        self._empty_until = dict.fromkeys(Lane, 0.0)
        self._events_a_batch = 1.0
        self._wait_s = _WAIT_S
        self._later_s = self._help_after_s
        self._claimed_all = False
        self._claimed_at = 0.0
        self._free_until = 0.0
        self._more_waits = False
        self._replay_waits = False
        self._circuit = Circuit(settings)
        self._numbers = WorkerNumbers(Lane)
        self._pieces = 0
        # Makes an engine of its parts.
        self._engine = Engine if tracer is None else partial(TracedEngine, tracer)

    def stop(self) -> None:
        self._stopping = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def run(self) -> None:
        """Work until stopped. Survives outages of PostgreSQL and Redis."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._stopping:
            try:
                self._run_connected()
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                _LOG.warning("PostgreSQL cannot serve (%s); waiting %.1f s", str(error).strip(), self._wait_s)
                time.sleep(self._wait_s * random.uniform(0.5, 1.0))  # noqa: S311
                self._wait_s = min(self._wait_s * 2, _WAIT_MAX_S)

    def _run_connected(self) -> None:
        url = self._settings.database_url
        with ExitStack() as stack:
            conn = stack.enter_context(connect(url, f"{self._name} work", statement_timeout_s=60, more=PLANNING))
            side = stack.enter_context(connect(url, f"{self._name} wake"))
            lookups = Lookups(self._settings, self._settings.redis_url)
            stack.callback(lookups.close)
            side.execute("LISTEN queue_work")
            self._note.write([])
            replaying = Replaying(conn, lookups, self._transform)
            replaying.note_transform()
            # Garbage collection skips the objects that live as long as the process.
            gc.freeze()
            engine = self._engine(self._settings, conn, lookups, self._circuit, self._transform)
            self._loop(conn, side, engine, lookups, replaying)
            self._note.write([])

    def _loop(
        self,
        conn: psycopg.Connection[Any],
        side: psycopg.Connection[Any],
        engine: Engine,
        lookups: Lookups,
        replaying: Replaying,
    ) -> None:
        low_water = LowWater()
        chores_at = 0.0
        woken = waits = False
        while not self._stopping:
            if time.monotonic() >= chores_at or self._circuit.tripped:
                chores_at = time.monotonic() + _CHORES_EVERY_S
                low_water.refresh(conn)
                waits = self._circuit.look(conn)
                if not waits:
                    self._isolate_suspects(engine)
                self._replay_waits, share, cap = replaying.state_of_lane()
                self._lanes.limit(Lane.REPLAY, share, cap)
                self._numbers.looked_up(lookups.hits, lookups.misses)
                lookups.hits = lookups.misses = 0
            served = not waits and self._serve_lanes(conn, engine, lookups, low_water, replaying)
            self._wait_s = _WAIT_S
            if served:
                self._later_s = self._help_after_s
            elif woken:
                self._later_s = min(self._later_s * 2, _HELP_AFTER_MAX_S)
            # A claim that took all work is not repeated: later work has sent a notification.
            woken = True if served and self._more_waits else self._sleep(side)

    def _serve_lanes(
        self,
        conn: psycopg.Connection[Any],
        engine: Engine,
        lookups: Lookups,
        low_water: LowWater,
        replaying: Replaying,
    ) -> bool:
        """Serve the most entitled lane that has work. False if none has."""
        self._more_waits = False
        for lane in self._lanes.order():
            start = time.monotonic()
            if start < self._empty_until[lane] or (lane is Lane.REPLAY and start < self._free_until):
                continue
            if lane is Lane.RETRY:
                done = redeliver(
                    self._settings, conn, lookups, lambda letters: self._note.write([], letters), self._transform
                )
            else:
                limit = max(1, min(_BATCHES_MAX, int(self._settings.claim_events_max / self._events_a_batch)))
                done = self._step(engine, lane, limit, low_water.marks[lane])
                if lane is Lane.REPLAY and self._replay_waits and not done.claimed:
                    done = Processed(claimed=replaying.step())
            if done.claimed:
                self._more_waits = lane is not Lane.LIVE or self._claimed_all
                end = time.monotonic()
                self._lanes.used(lane, end - start)
                if lane is Lane.LIVE and self._keeps_free:
                    self._free_until = end + _KEEP_FREE_S
                return True
            if lane is not Lane.LIVE:
                self._empty_until[lane] = start + _EMPTY_LANE_S
        return False

    def _step(self, engine: Engine, lane: Lane, limit: int, low_water: int) -> Processed:
        events_max = self._settings.claim_events_max
        waited_s = self._help_after_s if lane is Lane.LIVE else 0.0

        def noted(works: Sequence[Work]) -> None:
            self._note.write([work.work_id for work in works])
            self._pieces = len(works)
            events = sum(work.events for work in works)
            self._claimed_all = len(works) == limit or events >= events_max or is_full(works)
            self._claimed_at = time.monotonic()
            self._events_a_batch += (events / len(works) - self._events_a_batch) * 0.2

        begin = time.perf_counter()
        done = engine.step(lambda conn: claim(conn, lane, limit, low_water, events_max, waited_s), noted)
        if done.claimed:
            outcomes = (done.delivered, done.duplicate, done.dead_lettered)
            self._numbers.stepped(lane, self._pieces, outcomes, time.perf_counter() - begin)
        return done

    def _isolate_suspects(self, engine: Engine) -> None:
        """Process suspects one by one at once, for at most half of the time, so that live work goes on."""
        until = time.monotonic() + _CHORES_EVERY_S / 2
        while time.monotonic() < until and not self._stopping:
            if not isolate_suspect(
                self._settings, engine, lambda works: self._note.write([work.work_id for work in works])
            ):
                return

    def _sleep(self, side: psycopg.Connection[Any]) -> bool:
        """Sleep until woken (true) or until the poll is due."""
        woken = bool(list(side.notifies(timeout=0)))
        if not woken:
            select.select([side.fileno()], [], [], _POLL_S)
            woken = bool(list(side.notifies(timeout=0)))
        time.sleep(max(self._later_s, self._claimed_at + _CLAIM_EVERY_S - time.monotonic(), 0.0))
        return woken
