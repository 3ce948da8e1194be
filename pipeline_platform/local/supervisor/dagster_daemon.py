"""Process entry: `python -m pipeline_platform.local.supervisor.dagster_daemon` runs Dagster's daemon.

It adds three things to `dagster-daemon run`. It waits for the code server: a daemon that looks at the backfills under
way before that fails all of them. It watches the processes of runs. When it is told to stop, it ends them, so that
they can still write to the database; the next start repeats their runs. If it is killed, they continue.
"""

import argparse
import runpy
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from dagster import DagsterInstance

from pipeline_platform.local.instance.run_files import directory_of, end_all
from pipeline_platform.local.instance.watcher import Watcher

# Then it starts without the code server, which may have invalid definitions; backfills wait for it even so.
_WAIT_S = 120.0
_TICK_S = 0.1
_RUNS_END_S = 20.0


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline_platform.local.supervisor.dagster_daemon", description=__doc__
    )
    parser.add_argument("--socket", type=Path, required=True, help="the socket of the code server")
    arguments, of_dagster = parser.parse_known_args()
    # For the time before Dagster handles SIGTERM.
    signal.signal(signal.SIGTERM, _stop)
    _wait_for(arguments.socket)
    with DagsterInstance.get() as instance:
        stop = threading.Event()
        thread = threading.Thread(target=Watcher(instance).keep_looking, args=(stop,), name="run-watcher", daemon=True)
        thread.start()
        sys.argv[1:] = ["run", *of_dagster]
        try:
            runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)
        finally:
            end_all(directory_of(instance.root_directory), _RUNS_END_S)
            stop.set()
            thread.join()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not _serves(path) and time.monotonic() < deadline:
        time.sleep(_TICK_S)


def _serves(path: Path) -> bool:
    """Whether a process listens on the socket. A killed one leaves the file behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
