"""The pool: starts worker processes, replaces those that die, counts what they held, and does the queue's chores.

SIGTERM lets every worker finish its batch. If the pool itself is killed its workers end with it, and the next pool
counts what they left behind.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.errors import is_transient
from pipeline_platform.queue.keeper import Keeper
from pipeline_platform.services.process import tied_to_us
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("queue")
_TICK_S = 1.0
_WATCH_S = 0.1
_STOP_S = 30.0


class Pool:
    """`workers` processes, named by host, home and slot: a slot's next process answers for its last one's claim."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._slots: dict[str, subprocess.Popen[bytes] | None] = {
            f"{socket.gethostname()}:{settings.home.resolve()}:{slot}": None for slot in range(1, workers + 1)
        }
        self._to_reap = set(self._slots)
        self._stopping = False

    @property
    def ready_file(self) -> Path:
        return self._settings.home / "pool.ready"

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while not self._stopping:
                try:
                    with connect(self._settings.database_url, "keeper") as conn:
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
        keeper = Keeper(self._settings)
        tick_at = 0.0
        while not self._stopping:
            self._watch(conn)
            if time.monotonic() >= tick_at:
                tick_at = time.monotonic() + _TICK_S
                keeper.tick(conn)
                self.ready_file.write_text(f"{os.getpid()}\n")
            time.sleep(_WATCH_S)

    def _watch(self, conn: psycopg.Connection[Any]) -> None:
        """Replace dead workers, after counting what they held against it."""
        for name, process in self._slots.items():
            if process is not None and process.poll() is not None:
                _LOG.warning("worker %s ended with %s; starting another", name, process.returncode)
                self._to_reap.add(name)
                self._slots[name] = None
        for name in [name for name, process in self._slots.items() if process is None]:
            if name in self._to_reap:
                suspects = conn.execute(_SQL["reap_claim"], (name,)).fetchall()
                self._to_reap.discard(name)
                if suspects:
                    _LOG.warning("worker %s died with %d pieces of work in hand", name, len(suspects))
            self._slots[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipeline_platform.worker", "--name", name]
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
