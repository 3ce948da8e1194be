"""Finds all processes of a platform by the tag in their environment.

Only tagged processes of one home are ever ended here. `services` ends PostgreSQL and Redis, which may run as another
user.
"""

import contextlib
import os
from pathlib import Path

import psutil

TAG = "PIPELINE_SUPERVISED_BY"


def tag_of(home: Path, supervisor: int | None = None) -> str:
    """The tag of one supervisor's children, or the common prefix of all tags of `home`."""
    return f"{home.resolve()}:" + (f"{supervisor};" if supervisor else "")


def tagged(tag: str) -> list[psutil.Process]:
    """Live processes whose tag begins with `tag`, except this one."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(TAG, "").startswith(tag):
                found.append(process)
    return found


def end_tagged(tag: str, grace_s: float) -> list[int]:
    """Send SIGTERM, and after `grace_s` SIGKILL, to all processes with `tag`; returns the pids of those alive."""
    alive = tagged(tag)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(alive, timeout=grace_s)
    # Search again: a process may have started another one before it ended.
    for process in (killed := tagged(tag)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=grace_s)
    return [process.pid for process in alive]
