"""Find the processes of a platform, whoever started them: each carries a mark in its environment.

Only marked processes of one home are ever ended here; PostgreSQL and Redis, which run as another user, see to
themselves (`services`).
"""

import contextlib
import os
from pathlib import Path

import psutil

MARK = "PIPELINE_SUPERVISED_BY"


def mark_of(home: Path, supervisor: int | None = None) -> str:
    """The mark of one supervisor's children, or the beginning of the marks of all that ran in `home`."""
    return f"{home.resolve()}:" + (f"{supervisor};" if supervisor else "")


def marked(mark: str) -> list[psutil.Process]:
    """Living processes whose mark begins with `mark`, without ourselves."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found.append(process)
    return found


def end_marked(mark: str, grace_s: float) -> list[int]:
    """SIGTERM, then after `grace_s` SIGKILL, to all that carry `mark`; returns the pids of those that were alive."""
    alive = marked(mark)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(alive, timeout=grace_s)
    # Anew, since a dying process may have started another.
    for process in (killed := marked(mark)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=grace_s)
    return [process.pid for process in alive]
