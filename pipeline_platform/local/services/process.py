"""Child processes that never outlive their parent: how they start, log, become ready and stop.

A child gets its own session: Ctrl-C in the terminal reaches only the parent, which stops its children in order. On
Linux a child also gets a parent-death signal, so that it ends even if the parent is killed with SIGKILL. This module
ends only processes that it started, or that were left behind in a home whose lock it holds.
"""

import contextlib
import ctypes
import logging
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import psutil

from pipeline_platform.errors import ServiceError

_PR_SET_PDEATHSIG = 1
LOG_BYTES_MAX = 16 << 20
_LOG = logging.getLogger(__name__)
# Report long waits: a silent program seems to hang.
SAY_AFTER_S, SAY_EVERY_S = 5.0, 15.0
# Below the ports of outgoing connections, which begin at 32768 on Linux and at 49152 elsewhere.
_PORTS = range(15_000, 32_768)
_PORTS_TRIED = 100


def _in_child(parent: int, death_signal: signal.Signals, niceness: int = 0) -> Callable[[], None]:
    """What the child runs between fork and exec. Libraries are loaded before the fork, where loading is safe."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def arrange() -> None:
        # Background jobs of a shell ignore SIGINT, and a child would inherit this.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.nice(niceness)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:
                os._exit(1)

    return arrange


def tied_to_us(death_signal: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """A `preexec_fn` after which a child of this process gets `death_signal` when this process dies."""
    return _in_child(os.getpid(), death_signal)


def spawn(
    args: Sequence[str | Path],
    *,
    log: Path | None,
    cwd: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals = signal.SIGTERM,
    user: pwd.struct_passwd | None = None,
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Start `args` in its own session, both outputs appended to `log` (None: to this process's outputs).

    Linux binds the death signal to the calling thread: call this from a thread that outlives the child.
    """
    with open_log(log) if log else contextlib.nullcontext() as output:
        return subprocess.Popen(
            [str(arg) for arg in args],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            preexec_fn=_in_child(os.getpid(), death_signal, niceness),  # noqa: PLW1509  # runs after the change of user
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )


@contextlib.contextmanager
def open_log(path: Path) -> Generator[int]:
    """A descriptor that appends to `path` (mode 0600). A large file is first renamed to `path`.1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def rotate_logs(directory: Path) -> None:
    """Rotate every large log in `directory` to its `.1`, while processes write it.

    The log is copied and then truncated, so that writers append at its beginning. Lines written between the copy and
    the truncation, which follows immediately, are lost. OSError if the disk is full.
    """
    for log in directory.glob("*.log"):
        if log.stat().st_size <= LOG_BYTES_MAX:
            continue
        aside = log.with_name(log.name + ".1")
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with log.open("rb") as source, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        os.truncate(log, 0)


def log_tail(path: Path, lines: int = 15) -> str:
    """The end of a log, for an error message."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def stop(process: subprocess.Popen[bytes], first: signal.Signals, grace_s: float) -> None:
    """Send `first` to `process`; after `grace_s` kill its whole process group."""
    if process.poll() is None:
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    kill_group(process.pid)
    process.wait()


def kill_group(leader: int) -> None:
    """Send SIGKILL to the rest of a process group. Its id is not reused while it has members."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal and not continued."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def left_behind(name: str, cwd: Path) -> list[psutil.Process]:
    """Processes called `name` with the working directory `cwd`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and Path(process.cwd()) == cwd:
                found.append(process)
    return found


def end_left_behind(name: str, cwd: Path, first: signal.Signals, grace_s: float) -> bool:
    """End processes that an earlier run left in a home; the caller holds its lock. True if there were any."""
    orphans = left_behind(name, cwd)
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(first)
    _, alive = psutil.wait_procs(orphans, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)
    return bool(orphans)


def free_port(preferred: int = 0, host: str = "127.0.0.1") -> int:
    """A free port of `host`: `preferred` if it is free.

    Whoever asked listens on it a moment later. So it is none of those that the system gives to outgoing connections,
    which any process may take meanwhile.
    """
    for port in ([preferred] if preferred else []) + random.sample(_PORTS, _PORTS_TRIED):
        with contextlib.suppress(OSError):
            try_port(host, port)
            return port
    raise ServiceError(f"no free port on {host}: see `ss -ltn`")


def try_port(host: str, port: int) -> None:
    """OSError if nothing can listen on a port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path, limit_s: float
) -> None:
    """Wait until `ready()`. ServiceError, with the end of the log, if the process ends or takes too long."""
    started = time.monotonic()
    deadline, say_at = started + limit_s, started + SAY_AFTER_S
    while not ready():
        if time.monotonic() > say_at:
            say_at += SAY_EVERY_S
            _LOG.warning("waiting for %s, since %.0f s: see %s", what, time.monotonic() - started, log)
        if process.poll() is not None:
            raise ServiceError(f"{what} ended with {process.returncode} while starting. {log}:\n{log_tail(log)}")
        if time.monotonic() > deadline:
            raise ServiceError(f"{what} does not serve after {limit_s:.0f} s. {log}:\n{log_tail(log)}")
        time.sleep(0.02)
