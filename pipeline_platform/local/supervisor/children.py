"""Starts children, restarts them when they end, stops them in reverse order.

A child that ends during its start is tried three times; then it is an error with the end of its log. A child that ends
later is restarted without limit, after a wait that doubles from half a second to half a minute. Children are
independent: each must tolerate that others are unreachable for a while, and none is stopped because another ended.
"""

import logging
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline_platform import backoff
from pipeline_platform.errors import ConfigError, PipelineError, ServiceError
from pipeline_platform.local.services import process

_LOG = logging.getLogger(__name__)
_TICK_S = 0.05
_ROTATE_EVERY_S = 10.0
_STARTS_MAX = 3
_START_LIMIT_S = 300.0  # Dagster serves after 10 s here, after 100 s on a machine four times overloaded
_BACKOFF_BASE_S = 0.5
_BACKOFF_MAX_S = 30.0
_HEALTHY_AFTER_S = 60.0
_EXIT_CONFIG = 2
_TELL_AGAIN_S = 5.0


class Running(Protocol):
    """A process and the way to stop it: a `services.Server` or a `Program`."""

    @property
    def process(self) -> subprocess.Popen[bytes]: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Program:
    """A running program of the platform."""

    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    stop_grace_s: float

    def stop(self) -> None:
        process.stop(self.process, self.stop_signal, self.stop_grace_s)


@dataclass(frozen=True, slots=True)
class Child:
    """A child to run. `start` returns at once or when it serves; `ready` may be called while it runs."""

    name: str
    log: Path
    start: Callable[[], Running]
    ready: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class _Slot:
    child: Child
    running: Running | None = None
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.running = self.child.start()

    def note_end(self) -> int | None:
        """The exit code, once, of a child that ended by itself. Releases its resources and schedules a restart."""
        if self.running is None or (code := self.running.process.poll()) is None:
            return None
        self.running.stop()
        self.running = None
        self.note_failure()
        return code

    def note_failure(self) -> None:
        now = time.monotonic()
        self.failures = 1 if now - self.started_at > _HEALTHY_AFTER_S else self.failures + 1
        self.start_at = now + backoff.step_s(self.failures, _BACKOFF_BASE_S, _BACKOFF_MAX_S)


class Children:
    """The supervised processes. Call only from the main thread: a child dies with the thread that started it.

    `report(name, seconds)` is called when a child serves for the first time.
    """

    def __init__(self, report: Callable[[str, float], None]) -> None:
        self._report = report
        self._tiers: list[list[_Slot]] = []

    def pids(self) -> dict[str, int]:
        slots = (slot for tier in self._tiers for slot in tier)
        return {slot.child.name: slot.running.process.pid for slot in slots if slot.running}

    def start(self, *children: Child) -> None:
        """Start a tier, all children at once; return when all are ready. ServiceError if one does not serve."""
        tier = [_Slot(child) for child in children]
        self._tiers.append(tier)
        begun = time.monotonic()
        for slot in tier:
            slot.start()
        waiting, say_at = list(tier), begun + process.SAY_AFTER_S
        while waiting:
            if time.monotonic() > say_at:
                say_at += process.SAY_EVERY_S
                for slot in waiting:
                    _LOG.warning(
                        "waiting for %s, since %.0f s: see %s",
                        slot.child.name,
                        time.monotonic() - begun,
                        slot.child.log,
                    )
            for slot in list(waiting):
                self._retry_start(slot)
                if slot.running and slot.child.ready():
                    self._report(slot.child.name, time.monotonic() - begun)
                    waiting.remove(slot)
            if waiting and time.monotonic() - begun > _START_LIMIT_S:
                names = ", ".join(slot.child.name for slot in waiting)
                raise ServiceError(f"{names}: not ready after {_START_LIMIT_S:.0f} s. {_tail(waiting[0].child)}")
            time.sleep(_TICK_S)

    def _retry_start(self, slot: _Slot) -> None:
        code = slot.note_end()
        if code == _EXIT_CONFIG:
            raise ConfigError(f"{slot.child.name} cannot run like this. {_tail(slot.child)}")
        if code is not None and slot.failures >= _STARTS_MAX:
            raise ServiceError(f"{slot.child.name} ended with {code} while starting. {_tail(slot.child)}")
        if slot.running is None and time.monotonic() >= slot.start_at:
            slot.start()

    def watch(self, changed: Callable[[], None], stop_requested: Callable[[], bool]) -> None:
        """Restart ended children until asked to stop. Call `changed()` after a restart, again if the disk is full."""
        rotate_at = 0.0
        tell_at: float | None = None
        while not stop_requested():
            if time.monotonic() >= rotate_at:
                rotate_at = time.monotonic() + _ROTATE_EVERY_S
                self._rotate_logs()
            for slot in (slot for tier in self._tiers for slot in tier):
                if self._keep(slot):
                    tell_at = 0.0
            if tell_at is not None and time.monotonic() >= tell_at:
                try:
                    changed()
                    tell_at = None
                except OSError as error:
                    tell_at = time.monotonic() + _TELL_AGAIN_S
                    _LOG.warning("the new processes cannot be recorded, which is tried again: %s", error)
            time.sleep(_TICK_S)

    def _rotate_logs(self) -> None:
        for directory in {slot.child.log.parent for tier in self._tiers for slot in tier}:
            try:
                process.rotate_logs(directory)
            except OSError as error:
                _LOG.warning("the logs in %s are rotated later: %s", directory, error)

    def _keep(self, slot: _Slot) -> bool:
        """Restart the child if it ended and a restart is due; True if it was restarted."""
        code = slot.note_end()
        if code is not None:
            wait_s = slot.start_at - time.monotonic()
            _LOG.warning(
                "%s ended with %s: starting again in %.1f s. %s", slot.child.name, code, wait_s, slot.child.log
            )
        if slot.running is None and time.monotonic() >= slot.start_at:
            try:
                slot.start()
            except (PipelineError, OSError) as error:
                # The cause may be temporary, such as a full disk or too many processes.
                slot.note_failure()
                _LOG.warning("%s does not start: %s", slot.child.name, error)
            else:
                return True
        return False

    def stop(self) -> None:
        """Stop every child in an orderly way, the last tier first, all of a tier at once."""
        while self._tiers:
            running = [slot.running for slot in self._tiers.pop() if slot.running]
            with ThreadPoolExecutor(max_workers=max(1, len(running))) as threads:
                for stopping in [threads.submit(one.stop) for one in running]:
                    stopping.result()


def _tail(child: Child) -> str:
    return f"{child.log}:\n{process.log_tail(child.log)}"
