"""The platform's own programs as children: their commands, environment and readiness checks."""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from pipeline_platform.local.services import Server, process
from pipeline_platform.local.services.postgres import start_postgres
from pipeline_platform.local.services.redis import start_redis
from pipeline_platform.local.supervisor.children import Child, Program
from pipeline_platform.local.supervisor.leftovers import TAG, tag_of
from pipeline_platform.settings import Settings

_CONSOLE_NICENESS = 5  # on a busy machine events have priority over the console
_STOP_GRACE_S = 45.0  # a worker finishes its batch, for which its pool waits up to 30 s


class Embedded:
    """An embedded server as a child. After a restart it has the same URL, which other processes already use."""

    def __init__(self, name: str, home: Path) -> None:
        self._start = {"postgres": start_postgres, "redis": start_redis}[name]
        self._home = home
        self._port = 0
        self.url = self.socket_url = ""
        self.child = Child(name, home / "logs" / f"{name}.log", self._serve)

    def _serve(self) -> Server:
        server = self._start(self._home, port=self._port)
        self._port = urlsplit(server.url).port or 0
        self.url, self.socket_url = server.url, server.socket_url
        return server


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with exactly these settings."""
    ours = {f"PIPELINE_{name.upper()}" for name in Settings.model_fields}
    given = {name: value for name, value in os.environ.items() if name not in ours}
    for name, value in settings.model_dump(mode="json", exclude_defaults=True).items():
        given[f"PIPELINE_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    return given


def program(
    home: Path,
    name: str | None,
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    niceness: int = 0,
) -> Program:
    """Run a Python module with the tag, its output in ``home/logs/NAME.log`` (no name: this process's output)."""
    child = process.spawn(
        [sys.executable, "-m", *arguments],
        log=home / "logs" / f"{name}.log" if name else None,
        cwd=home,
        env={**env, TAG: tag_of(home, os.getpid())},
        death_signal=stop_signal,
        niceness=niceness,
    )
    return Program(child, stop_signal, _STOP_GRACE_S)


def gateway(settings: Settings) -> Child:
    """The gateway; ready when /readyz answers 200."""
    arguments = ["pipeline_platform.gateway", "--port", str(settings.gateway_port)]
    return Child(
        "gateway",
        settings.home / "logs" / "gateway.log",
        partial(program, settings.home, "gateway", arguments, environment(settings)),
        partial(answers, f"{gateway_url(settings)}/readyz"),
    )


def gateway_url(settings: Settings) -> str:
    """The gateway's URL for this machine."""
    return _url(settings.gateway_host, settings.gateway_port)


def console(settings: Settings) -> Child:
    """The console; ready when it answers, with or without a database."""
    arguments = ["pipeline_platform.watch.console", "--port", str(settings.console_port)]
    return Child(
        "console",
        settings.home / "logs" / "console.log",
        partial(program, settings.home, "console", arguments, environment(settings), niceness=_CONSOLE_NICENESS),
        partial(answers, f"{console_url(settings)}/healthz"),
    )


def console_url(settings: Settings) -> str:
    """The console's URL for this machine."""
    return _url(settings.console_host, settings.console_port)


def _url(host: str, port: int) -> str:
    """The URL; a wildcard address is replaced by loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def pool(settings: Settings) -> Child:
    """The worker pool; ready when it has written pool.ready."""
    arguments = ["pipeline_platform.worker", "--workers", str(settings.workers)]
    ready_file = settings.home / "pool.ready"

    def start() -> Program:
        ready_file.unlink(missing_ok=True)
        return program(settings.home, "workers", arguments, environment(settings))

    return Child("workers", settings.home / "logs" / "workers.log", start, ready_file.exists)


def mirror(settings: Settings) -> Child:
    """The mirror; ready as soon as it runs."""
    return Child(
        "mirror",
        settings.home / "logs" / "mirror.log",
        partial(program, settings.home, "mirror", ["pipeline_platform.migration.mirror"], environment(settings)),
    )


def alerts(settings: Settings) -> Child:
    """The alerts process; ready as soon as it runs."""
    return Child(
        "alerts",
        settings.home / "logs" / "alerts.log",
        partial(program, settings.home, "alerts", ["pipeline_platform.watch.alerts"], environment(settings)),
    )


def legacy(settings: Settings) -> list[Child]:
    """The simulated old pipeline; its gateway is ready when it answers."""
    module = "pipeline_platform.migration.simulation"
    return [
        _legacy_part(settings, "legacy-gateway", [module, "gateway", "--port", str(settings.legacy_port)], "healthz"),
        _legacy_part(settings, "legacy-functions", [module, "functions"]),
    ]


def legacy_url(settings: Settings) -> str:
    """The URL to which batches for the simulated old pipeline are sent."""
    return f"http://127.0.0.1:{settings.legacy_port}/v1/batch"


def _legacy_part(settings: Settings, name: str, arguments: Sequence[str], health: str = "") -> Child:
    url = f"http://127.0.0.1:{settings.legacy_port}/{health}"
    return Child(
        name,
        settings.home / "logs" / f"{name}.log",
        partial(program, settings.home, name, arguments, environment(settings)),
        partial(answers, url) if health else lambda: True,
    )


def answers(url: str) -> bool:
    """Whether a GET succeeds, without a proxy because the server is on this machine."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False
