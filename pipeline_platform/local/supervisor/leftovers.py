"""Finds all processes of a platform by the mark in their environment.

Only marked processes of one home are ever ended here. `services` ends PostgreSQL and Redis, which may run as another
user.
"""

import contextlib
import os
from pathlib import Path

import psutil

MARK = "PIPELINE_SUPERVISED_BY"


def mark_of(home: Path, supervisor: int | None = None) -> str:
    """The mark of one supervisor's children, or the common prefix of all marks of `home`."""
    return f"{home.resolve()}:" + (f"{supervisor};" if supervisor else "")


def marked(mark: str) -> list[psutil.Process]:
    """Live processes whose mark begins with `mark`, except this one."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
    return found


def end_marked(mark: str, grace_s: float) -> list[int]:
    """Send SIGTERM, and after `grace_s` SIGKILL, to all processes with `mark`; returns the pids of those alive."""
    alive = marked(mark)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(alive, timeout=grace_s)
    # Search again: a process may have started another one before it ended.
    for process in (killed := marked(mark)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=grace_s)
    return [process.pid for process in alive]
