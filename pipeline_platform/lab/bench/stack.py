"""A temporary platform for a benchmark: servers, gateway and workers, without Dagster."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from pipeline_platform.errors import PipelineError
from pipeline_platform.local.services import start_postgres, start_redis
from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.schema import migrate
from pipeline_platform.settings import Settings

_READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Stack:
    """The data of the running platform that a load needs."""

    settings: Settings
    gateway_port: int


@contextmanager
def running_stack(settings: Settings) -> Generator[Stack]:
    """Start everything in a new home; stop and remove it at the end."""
    with ExitStack() as stack:
        # Not under the user's home directory, because PostgreSQL may run as another account.
        home = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
        stack.callback(shutil.rmtree, home)
        postgres = stack.enter_context(start_postgres(home))
        redis = stack.enter_context(start_redis(home))
        migrate(postgres.url)
        port = free_port()
        own = settings.model_copy(
            update={"home": home, "database_url": postgres.url, "redis_url": redis.url, "gateway_port": port}
        )
        env = os.environ | {
            "PIPELINE_HOME": str(home),
            # The same as in `up`.
            "PIPELINE_DATABASE_URL": postgres.socket_url,
            "PIPELINE_REDIS_URL": redis.socket_url,
        }
        commands = {
            "pool": ["pipeline_platform.worker", "--workers", str(settings.workers)],
            "gateway": ["pipeline_platform.gateway", "--port", str(port)],
        }
        for name, command in commands.items():
            log = home / "logs" / f"{name}.log"
            child = spawn([sys.executable, "-m", *command], log=log, cwd=Path.cwd(), env=env)
            stack.callback(stop, child, signal.SIGTERM, 15.0)
        _wait_until_serving(home, port)
        yield Stack(own, port)


def _wait_until_serving(home: Path, port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            ready = False
        if ready and (home / "pool.ready").exists():
            return
        time.sleep(0.1)
    logs = "\n".join(log_tail(path) for path in sorted((home / "logs").glob("*.log")))
    raise PipelineError(f"the platform does not serve after {_READY_S:.0f} s:\n{logs}")
