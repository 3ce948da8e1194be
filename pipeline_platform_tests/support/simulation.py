"""The simulated old pipeline and the mirror as processes of their own, always ended."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.migration.simulation.queueing import events_inside
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.environments import environment_of
from pipeline_platform_tests.support.migration import point_mirror
from pipeline_platform_tests.support.waiting import wait_for

_ROOT = Path(__file__).parents[2]


class LegacyPipeline:
    """Both processes on the servers of `settings`; `mirror=True` starts the mirror and points it here."""

    def __init__(self, settings: Settings, *, capacity_per_s: float = 400.0, mirror: bool = False) -> None:
        self.settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1/batch"
        self._mirror = mirror
        self._environment = environment_of(settings, legacy_capacity_per_s=str(capacity_per_s))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.start("legacy-gateway", ["pipeline_platform.migration.simulation", "gateway", "--port", str(self.port)])
        self.start("legacy-functions", ["pipeline_platform.migration.simulation", "functions"])
        wait_for("the old pipeline to answer", self._answers, 30)
        if self._mirror:
            point_mirror(self.settings, self.url)
            self.start_mirror()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            stop(process, signal.SIGTERM, 20)
        if error is not None:
            for name in self.processes:
                print(f"--- the end of {name}.log\n{log_tail(self._log(name), 40)}")

    def start(self, name: str, arguments: list[str], **more: str) -> None:
        environment = self._environment | more
        command = [sys.executable, "-m", *arguments]
        self.processes[name] = spawn(command, log=self._log(name), cwd=_ROOT, env=environment)

    def start_mirror(self, kill_point: str = "") -> None:
        self.start("mirror", ["pipeline_platform.migration.mirror"], PIPELINE_KILL_POINT=kill_point)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def await_idle(self, conn: psycopg.Connection[Any], deadline_s: float = 60.0) -> None:
        """Until nothing waits for the mirror or inside the old pipeline."""

        def busy() -> bool:
            waiting = conn.execute("SELECT count(*) FROM queue.mirror").fetchone()
            return waiting != (0,) or events_inside(self.settings.redis_url) > 0

        wait_for("the old pipeline to be idle", lambda: not busy(), deadline_s)
        # Its last counts are written at its end, or a moment later.
        for name in ("legacy-functions", "legacy-gateway"):
            stop(self.processes[name], signal.SIGTERM, 20)

    def _log(self, name: str) -> Path:
        return self.settings.home / "logs" / f"{name}.log"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def mirror(settings: Settings, kill_point: str = "") -> Iterator[LegacyPipeline]:
    """The mirror's process alone."""
    process = LegacyPipeline(settings)
    process.start_mirror(kill_point)
    try:
        yield process
    finally:
        process.__exit__(None, None, None)
