"""A supervised platform with its own embedded servers, as `up` starts it, without Dagster."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from pipeline_platform.local.services import Endpoints, read_endpoints
from pipeline_platform_tests.support.environments import environment_with
from pipeline_platform_tests.support.waiting import wait_for


@contextmanager
def supervised(home: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor that serves. more: settings by their lower-case names."""
    settings = {"home": str(home), "gateway_port": "0", "dagster_port": "0", "console_port": "0"}
    environment = environment_with(**settings | more)
    command = [sys.executable, "-m", "pipeline_platform.local.supervisor", "--no-dagster"]
    supervisor = subprocess.Popen(command, env=environment, umask=0o022)
    try:
        wait_for("the platform to serve", lambda: serves(home, supervisor.pid) or supervisor.poll() is not None, 120)
        assert supervisor.poll() is None, "the supervisor ended while starting"
        yield supervisor
    finally:
        supervisor.terminate()
        supervisor.wait()


def serves(home: Path, supervisor: int) -> bool:
    """Whether this supervisor's platform is up."""
    endpoints = read_endpoints(home)
    return endpoints is not None and endpoints.pids["supervisor"] == supervisor


def endpoints_of(home: Path) -> Endpoints:
    """The addresses of the platform of a home."""
    endpoints = read_endpoints(home)
    assert endpoints is not None
    return endpoints


def ready(home: Path) -> bool:
    """Whether its gateway says that it can store events."""
    try:
        return httpx.get(f"{endpoints_of(home).gateway}/readyz").is_success
    except httpx.TransportError:
        return False
