"""`up --detach`: starts the supervisor in its own session and relays its output until it serves or fails."""

import subprocess
import sys
import time
from pathlib import Path

from pipeline_platform.local.services import process, read_endpoints
from pipeline_platform.local.supervisor import screen
from pipeline_platform.local.supervisor.programs import environment
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.visible import visible_lines

_TICK_S = 0.1


def up_detached(settings: Settings, *, dagster: bool, legacy: bool) -> int:
    """Return 0 when the platform serves, else the exit code of the supervisor, whose errors were shown.

    settings.home is absolute. If interrupted, it stops what it started.
    """
    log = settings.home / "logs" / "up.log"
    arguments = [*([] if dagster else ["--no-dagster"]), *(["--with-legacy"] if legacy else [])]
    with process.open_log(log) as output:
        said = log.stat().st_size
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "pipeline_platform.local.supervisor", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(settings),
            cwd=settings.home,
            start_new_session=True,
        )
    try:
        with screen.busy("starting"):
            while not _serves(settings.home, supervisor.pid):
                said = _relay(log, said)
                if supervisor.poll() is not None:
                    _relay(log, said)
                    return supervisor.returncode or 1
                time.sleep(_TICK_S)
    except BaseException:
        supervisor.terminate()
        supervisor.wait()
        raise
    _relay(log, said)
    if endpoints := read_endpoints(settings.home):
        screen.summary(settings.home, endpoints)
    return 0


def _serves(home: Path, supervisor: int) -> bool:
    endpoints = read_endpoints(home)
    return endpoints is not None and endpoints.pids.get("supervisor") == supervisor


def _relay(log: Path, start: int) -> int:
    """Write the log from `start` on to standard error; returns its end."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    sys.stderr.write(visible_lines(text.decode(errors="replace")))
    sys.stderr.flush()
    return start + len(text)
