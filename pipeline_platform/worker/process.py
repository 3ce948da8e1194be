"""One worker process: waits until it is woken, claims work and processes it, until it is stopped.

After SIGTERM or SIGINT it finishes the current batch. While PostgreSQL is unreachable it waits and reconnects, and
nothing is counted. When it dies, its transaction is rolled back and the pool starts another. An operator need not act.
"""

import gc
import logging
import select
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from pipeline_platform.backoff import jittered_s
from pipeline_platform.db import connect
from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.errors import is_transient
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.claim_notes import ClaimNote
from pipeline_platform.queue.low_water import LowWater
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.tracing import Tracer
from pipeline_platform.worker.engine import PLANNING, Engine
from pipeline_platform.worker.pacing import Pacing
from pipeline_platform.worker.replay_lane import Replaying
from pipeline_platform.worker.serving import LaneServer, Session
from pipeline_platform.worker.suspects import isolate_suspect
from pipeline_platform.worker.traced import TracedEngine
from pipeline_platform.worker.transform import Transform, transform

_LOG = logging.getLogger(__name__)
# Work waits no longer than this if a notification is lost (a gateway dies between its commit and its NOTIFY).
_POLL_S = 0.25
_CHORES_EVERY_S = 0.5
# The first and the longest wait after transient errors.
_RETRY_S, _RETRY_S_MAX = 0.1, 5.0


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
        self._note = ClaimNote(note_path(settings, slot))
        self._pacing = Pacing(slot, workers, settings.claim_events_max)
        self._lanes = LaneServer(settings, self._pacing, self._note)
        self._circuit = Circuit(settings)
        # Makes an engine of its parts.
        self._engine = Engine if tracer is None else partial(TracedEngine, tracer)
        self._stopping = False
        self._failures = 0

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
                self._failures += 1
                wait_s = jittered_s(self._failures, _RETRY_S, _RETRY_S_MAX)
                _LOG.warning("PostgreSQL cannot serve (%s); waiting %.1f s", str(error).strip(), wait_s)
                time.sleep(wait_s)

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
            self._loop(Session(conn, engine, lookups, replaying, LowWater(), self._transform), side)
            self._note.write([])

    def _loop(self, session: Session, side: psycopg.Connection[Any]) -> None:
        chores_at = 0.0
        woken = waits = False
        while not self._stopping:
            if time.monotonic() >= chores_at or self._circuit.tripped:
                chores_at = time.monotonic() + _CHORES_EVERY_S
                waits = self._do_chores(session)
            served = not waits and self._lanes.serve(session)
            self._failures = 0
            self._pacing.turned(served=served, woken=woken)
            # A claim that took all work is not repeated: later work has sent a notification.
            woken = True if served and self._lanes.more_waits else self._sleep(side)

    def _do_chores(self, session: Session) -> bool:
        """What is due twice a second. True while the circuit is open, so that no lane is to be served."""
        session.low_water.refresh(session.conn)
        waits = self._circuit.look(session.conn)
        if not waits:
            self._isolate_suspects(session.engine)
        self._lanes.refresh(session)
        return waits

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
        time.sleep(self._pacing.pause_s())
        return woken
