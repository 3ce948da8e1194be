"""What `up` and `down` print: progress to standard error, addresses to standard output."""

import sys
from pathlib import Path

from rich.console import Console
from rich.status import Status

from pipeline_platform.services.endpoints import Endpoints

_ERR = Console(stderr=True, highlight=False)


def busy(text: str) -> Status:
    """A spinner while something takes its time; nothing where standard error is no terminal."""
    return _ERR.status(text)


def serves(name: str, seconds: float) -> None:
    _ERR.print(f"[green]✓[/green] {name} serves after {seconds:.1f} s")


def say(text: str) -> None:
    _ERR.print(text, markup=False)


def summary(home: Path, endpoints: Endpoints) -> None:
    """Where it serves, and three commands to go on with."""
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
    """Our command as the reader can type it here."""
    called = Path(sys.argv[0])
    if called.name != "pipeline-platform":
        return "pipeline-platform"
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(called)
