"""Which runs have a living process: a file for each, which its process holds locked until it ends.

The system releases the lock when the process ends, however it ends, and after a reboot. So a free lock means that the
process is gone, and no process id can be mistaken for another's. The file contains the process id.
"""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

import psutil

_TAKE_S = 2.0  # `process_of` holds a free lock for a moment
_TICK_S = 0.05
_SUFFIX = ".run"


def directory_of(dagster_home: str | Path) -> Path:
    return Path(dagster_home) / "runs"


def take(directory: Path, run_id: str) -> int:
    """A descriptor that locks the file of a run, for its process to inherit. BlockingIOError if the run has one."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_path(directory, run_id), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _TAKE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise
            time.sleep(_TICK_S)
        else:
            os.truncate(descriptor, 0)
            return descriptor


def give(descriptor: int, pid: int) -> None:
    """Leave the lock to the process `pid`, which inherited the descriptor."""
    os.pwrite(descriptor, str(pid).encode(), 0)
    os.close(descriptor)


def process_of(directory: Path, run_id: str) -> int | None:
    """The process of a run; 0 while it is being started, None if there is none."""
    try:
        with _path(directory, run_id).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except FileNotFoundError:
        pass
    return None


def files(directory: Path) -> dict[str, Path]:
    """The files of all runs, by run id."""
    return {path.name.removesuffix(_SUFFIX): path for path in directory.glob(f"*{_SUFFIX}")}


def end_all(directory: Path, grace_s: float) -> int:
    """End the processes of all runs: SIGTERM, and after `grace_s` SIGKILL. Returns how many there were."""
    living = [process for run_id in files(directory) if (process := _process(directory, run_id))]
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    _, left = psutil.wait_procs(living, timeout=grace_s)
    for process in left:
        end_group(process.pid)
    psutil.wait_procs(left, timeout=grace_s)
    return len(living)


def end_group(pid: int) -> None:
    """SIGKILL to the process of a run and to all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _process(directory: Path, run_id: str) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        if pid := process_of(directory, run_id):
            return psutil.Process(pid)
    return None


def _path(directory: Path, run_id: str) -> Path:
    return directory / f"{run_id}{_SUFFIX}"
