"""The real processes of a data plane: gateway and worker pool, started, killed, watched and always ended."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg

from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.environments import environment_of
from pipeline_platform_tests.support.waiting import wait_for

_ROOT = Path(__file__).parents[2]
_STOP_S = 30.0
_START_S = 120.0  # on a machine that does much else


class Platform:
    """Processes on the servers of `settings`; leaving the context ends all of them."""

    def __init__(self, settings: Settings, **more_settings: str) -> None:
        self.settings = settings
        self.port = free_port()
        self._gateway: subprocess.Popen[bytes] | None = None
        self._pool: subprocess.Popen[bytes] | None = None
        self._environment = environment_of(settings, **more_settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._gateway, self._pool):
            if process is not None:
                stop(process, signal.SIGTERM, _STOP_S)
        if error is not None:
            for name in ("gateway", "workers"):
                print(f"--- the end of {name}.log\n{log_tail(self.log(name), 40)}")

    def log(self, name: str) -> Path:
        return self.settings.home / "logs" / f"{name}.log"

    def start_gateway(self, kill_point: str = "", database_url: str = "") -> None:
        """Start it on the same port as before, and wait until it serves.

        kill_point: where it will die. database_url: another way to the database.
        """
        more = {"PIPELINE_KILL_POINT": kill_point} if kill_point else {}
        if database_url:
            more["PIPELINE_DATABASE_URL"] = database_url
        self._gateway = self._spawn("gateway", ["-m", "pipeline_platform.gateway", "--port", str(self.port)], more)
        wait_for("the gateway to serve", self._gateway_serves)

    def kill_gateway(self) -> None:
        """SIGKILL; returns when it is dead."""
        assert self._gateway is not None
        self._gateway.kill()
        self._gateway.wait()

    def gateway_died(self) -> bool:
        """Whether it ended by SIGKILL; whatever else ends it is a failure."""
        assert self._gateway is not None
        code = self._gateway.poll()
        assert code in (None, -signal.SIGKILL), f"the gateway ended with {code}: {log_tail(self.log('gateway'))}"
        return code is not None

    def start_workers(self, workers: int = 2, kill_points: Sequence[str] = (), transform: str = "") -> None:
        """Start a pool and wait until it is ready. kill_points: of the first worker processes it starts, one each.

        transform: the name of one in support/transforms.py.
        """
        more = {"TEST_KILL_POINTS": json.dumps(list(kill_points))}
        if transform:
            more["TEST_TRANSFORM"] = transform
        ready = self.settings.home / "pool.ready"
        ready.unlink(missing_ok=True)
        self._pool = self._spawn("workers", ["-m", "pipeline_platform_tests.support.pool", str(workers)], more)
        wait_for("the worker pool", ready.exists, _START_S)

    def start_crashing_workers(self, transform: str = "", python_path: Path | None = None) -> None:
        """Start a pool that may never be ready, because its workers die of a transform of support/transforms.py.

        python_path: they die of the `sitecustomize` there instead.
        """
        more = {"TEST_TRANSFORM": transform} if transform else {}
        if python_path is not None:
            more["PYTHONPATH"] = f"{python_path}{os.pathsep}{_ROOT}"
        self._pool = self._spawn("workers", ["-m", "pipeline_platform_tests.support.pool", "2"], more)

    def workers(self) -> list[psutil.Process]:
        """The worker processes that run now."""
        assert self._pool is not None
        assert self._pool.poll() is None, (
            f"the pool ended with {self._pool.returncode}: {log_tail(self.log('workers'))}"
        )
        return psutil.Process(self._pool.pid).children()

    def kill_a_worker(self, rng: random.Random) -> None:
        """SIGKILL one of them, whatever it is doing."""
        victims = wait_for("a worker to kill", self.workers)
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(victims).kill()

    def stop_workers(self) -> int:
        """SIGTERM; the pool's exit code."""
        assert self._pool is not None
        self._pool.terminate()
        return self._pool.wait(_STOP_S)

    def kill_pool(self) -> None:
        """SIGKILL to the pool: its workers end with it. Returns when all are dead."""
        assert self._pool is not None
        workers = self.workers()
        self._pool.kill()
        self._pool.wait()
        _, alive = psutil.wait_procs(workers, timeout=_STOP_S)
        assert not alive, f"workers outlived their pool: {alive}"

    def worker_deaths(self) -> int:
        """How many worker processes the pool has found dead."""
        return self.log("workers").read_text().count("starting another")

    def await_drained(self, conn: psycopg.Connection[Any], deadline_s: float = 60.0) -> None:
        """Wait until no work is left."""
        self.await_drained_until(conn, 1 << 62, deadline_s)

    def await_drained_until(self, conn: psycopg.Connection[Any], newest: int, deadline_s: float = 60.0) -> None:
        """Wait until all work up to the id `newest` is done."""

        def left() -> Any:
            return conn.execute("SELECT count(*) FROM queue.work WHERE work_id <= %s", (newest,)).fetchone()

        wait_for("the queue to be drained", lambda: left() == (0,), deadline_s)

    def _spawn(self, name: str, arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        environment = self._environment | dict(more)
        return spawn([sys.executable, *arguments], log=self.log(name), cwd=_ROOT, env=environment)

    def _gateway_serves(self) -> bool:
        assert self._gateway is not None
        assert self._gateway.poll() is None, f"the gateway ended: {log_tail(self.log('gateway'))}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False
