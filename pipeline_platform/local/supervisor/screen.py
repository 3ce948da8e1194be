"""The output of `up` and `down`: progress to standard error, addresses to standard output."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline_platform.local.services.endpoints import Endpoints
from pipeline_platform.telemetry.terminal import Terminal, ticked

_ERR = Terminal(stderr=True)


def busy(text: str) -> AbstractContextManager[Callable[[str], None]]:
    """A spinner while the context is open; nothing if standard error is not a terminal."""
    return _ERR.waiting(text)


def serves(name: str, seconds: float) -> None:
    _ERR.print(ticked(True, f"{name} serves after {seconds:.1f} s"))


def fails(text: str) -> None:
    _ERR.print(ticked(False, text), soft_wrap=True)


def say(text: str) -> None:
    _ERR.print(text, soft_wrap=True)


def summary(home: Path, endpoints: Endpoints) -> None:
    """Print the addresses, and three commands to continue with."""
    command = _command()
    next_steps = {
        "tenant add demo": "prints a write key",
        "send events.ndjson --write-key KEY": "any NDJSON file of events",
        "funnel": "every event accounted for",
    }
    lines = [
        "",
        "The platform serves:",
        f"  gateway   {endpoints.gateway}",
        f"  console   {endpoints.console or 'not started'}",
        f"  Dagster   {endpoints.dagster or 'not started'}",
        f"  database, cache, passwords: {home / 'endpoints.json'}",
        "",
        "Try next:",
        *(f"  {command} {arguments:<34}  # {what}" for arguments, what in next_steps.items()),
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _command() -> str:
    """The name of the command as it can be typed in this environment."""
    called = Path(sys.argv[0])
    if called.name != "pipeline-platform":
        return "pipeline-platform"
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(called)
