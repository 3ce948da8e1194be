"""The pool: starts worker processes, replaces those that die, counts what they held, and does the queue's chores.

SIGTERM lets every worker finish its batch. If the pool itself is killed, its workers end with it, and the next pool
counts what they held.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.errors import is_transient
from pipeline_platform.local.services.process import tied_to_us
from pipeline_platform.queue.claim_notes import read_claim_note
from pipeline_platform.queue.keeper import LOCK_TIMEOUT_S, Keeper
from pipeline_platform.settings import Settings
from pipeline_platform.worker.process import note_path
from pipeline_platform.worker.retry_lane import count_death

_LOG = logging.getLogger(__name__)
_SQL = queries("queue")
_TICK_S = 1.0
_WATCH_S = 0.1
_STOP_S = 30.0


class Pool:
    """`workers` processes, one per slot. What a slot's last process held is counted before its next one starts."""

    # What each process runs.
    _module = "pipeline_platform.worker"

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._slots: dict[int, subprocess.Popen[bytes] | None] = dict.fromkeys(range(1, workers + 1))
        self._to_reap = set(self._slots)
        self._stopping = False
        self._keeper = Keeper(settings)

    @property
    def ready_file(self) -> Path:
        return self._settings.home / "pool.ready"

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while not self._stopping:
                try:
                    with connect(self._settings.database_url, "keeper", lock_timeout_s=LOCK_TIMEOUT_S) as conn:
                        self._keep(conn)
                except psycopg.Error as error:
                    if not is_transient(error):
                        raise
                    _LOG.warning("PostgreSQL is away (%s); waiting", str(error).strip())
                    time.sleep(_TICK_S)
        finally:
            self.ready_file.unlink(missing_ok=True)
            self._stop_workers()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _keep(self, conn: psycopg.Connection[Any]) -> None:
        tick_at = 0.0
        while not self._stopping:
            self._watch(conn)
            if time.monotonic() >= tick_at:
                tick_at = time.monotonic() + _TICK_S
                self._keeper.tick(conn)
                self._say_ready()
            time.sleep(_WATCH_S)

    def _say_ready(self) -> None:
        """Write the ready file once every worker is connected. Its first note shows that."""
        if all(note_path(self._settings, slot).exists() for slot in self._slots):
            self.ready_file.write_text(f"{os.getpid()}\n")

    def _watch(self, conn: psycopg.Connection[Any]) -> None:
        """Replace dead workers. First count their deaths against what they held."""
        for slot, process in self._slots.items():
            if process is not None and process.poll() is not None:
                _LOG.warning("worker %d ended with %s; starting another", slot, process.returncode)
                self._to_reap.add(slot)
                self._slots[slot] = None
                conn.execute(_SQL["worker_died"], (slot, process.returncode))
        for slot in [slot for slot, process in self._slots.items() if process is None]:
            if slot in self._to_reap:
                self._reap(conn, slot)
            self._slots[slot] = self._start(slot)

    def _reap(self, conn: psycopg.Connection[Any], slot: int) -> None:
        """Count a death against what the slot's last process held. Completed work is gone and not counted."""
        held = read_claim_note(note_path(self._settings, slot))
        suspects = conn.execute(_SQL["reap"], (list(held.work_ids),)).fetchall()
        if held.letters:
            count_death(conn, self._settings, held.letters)
        self._to_reap.discard(slot)
        if suspects:
            batches = sorted({batch_id for (batch_id,) in suspects})
            _LOG.warning(
                "worker %d died with %d pieces of work in hand, of batches %s",
                slot,
                len(suspects),
                ", ".join(map(str, batches)),
                extra={"batch_ids": batches},
            )
        if held.letters:
            _LOG.warning("worker %d died with up to %d dead letters in hand", slot, len(held.letters))

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        note_path(self._settings, slot).unlink(missing_ok=True)
        command = [sys.executable, "-m", self._module, "--slot", str(slot)]
        command += ["--workers", str(len(self._slots))]
        return subprocess.Popen(command, preexec_fn=tied_to_us())  # noqa: PLW1509 -- before any thread

    def _stop_workers(self) -> None:
        running = [process for process in self._slots.values() if process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _STOP_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
