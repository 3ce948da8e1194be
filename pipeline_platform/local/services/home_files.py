"""A server's files in the home: its lock, its secret, its port, and files that its user can reach.

PostgreSQL refuses to run as root. If root starts the servers, they run as the account `pgserver`, which gets access to
what they need: others may pass (never list) the directories above. Nothing is ever removed.
"""

import contextlib
import fcntl
import os
import pwd
import secrets
import shlex
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline_platform.errors import ConfigError

_PID_DIGITS = 10
_ACCOUNT = "pgserver"
# Directories of administrators' commands. The PATH of a container or of cron may not contain them.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_LOCK_WAIT_S = 0.5  # `lock_owner` briefly holds a free lock


def usable_home(home: Path) -> Path:
    """The absolute path of the home, created if missing. ConfigError if not all of it is ours.

    The owner of a home could not read files that another user wrote into it, and its next start would fail.
    """
    try:
        absolute = home.resolve()
        absolute.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"the home {home} cannot be made ({why}): set PIPELINE_HOME to a directory of yours"
        ) from error
    us = os.geteuid()
    if not os.access(absolute, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(
            f"the home {absolute} belongs to {_user(absolute.stat().st_uid)} and cannot be written by {_user(us)}: "
            "set PIPELINE_HOME to a directory of yours"
        )
    owners = {us, *(user.pw_uid for user in _service_users())}
    for path in (absolute, *_shallow(absolute)):
        owner = path.stat().st_uid
        if owner != us and (path == absolute or owner not in owners):
            command = f"sudo chown -R {_user(us)} {shlex.quote(str(absolute))}"
            raise ConfigError(
                f"{path} belongs to {_user(owner)}, and this is {_user(us)}: run as {_user(owner)}, "
                f"set PIPELINE_HOME to another directory, or take this one over: {command}"
            )
    return absolute


def _service_users() -> list[pwd.struct_passwd]:
    try:
        return [pwd.getpwnam(_ACCOUNT)] if os.geteuid() == 0 else []
    except KeyError:
        return []


def _shallow(home: Path) -> Iterator[Path]:
    """The files in the home and in its directories, not deeper, without broken links."""
    for path in home.iterdir():
        if path.exists():
            yield path
            if path.is_dir() and os.access(path, os.R_OK | os.X_OK, effective_ids=True):
                yield from (inner for inner in path.iterdir() if inner.exists())


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def secret(path: Path) -> str:
    """A random password, created once and kept in `path` (mode 0600)."""
    if not path.exists():
        unfinished = path.with_name(path.name + ".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        unfinished.rename(path)
    return path.read_text().strip()


def last_port(room: Path) -> int:
    """The port of the last run, which `keep_port` wrote; 0 if there was none."""
    path = room / "port"
    return int(path.read_text()) if path.exists() else 0


def keep_port(room: Path, port: int) -> None:
    (room / "port").write_text(str(port))


class HomeLock:
    """An exclusive lock on a file for the life of the process. ConfigError, naming the owner, if it is taken."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait(path)
            # Overwrite the same number of bytes, so that a lock can be taken while the disk is full.
            os.pwrite(self._descriptor, _owner(os.getpid()), 0)
        except BaseException:
            # An open descriptor would keep the lock, and a later start would find it in use.
            os.close(self._descriptor)
            raise

    def _wait(self, path: Path) -> None:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while not self._take():
            if time.monotonic() > deadline:
                owner = os.read(self._descriptor, 32).decode().strip()
                raise ConfigError(
                    f"{path.parent} is in use by process {owner if owner != '0' else 'unknown'}: "
                    "stop it (pipeline-platform down), or set PIPELINE_HOME to another directory"
                )
            time.sleep(_LOCK_WAIT_S / 10)

    def _take(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            # Write 0 as the owner. On a full copy-on-write file system this may fail, which does no harm.
            with contextlib.suppress(OSError):
                os.pwrite(descriptor, _owner(0), 0)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _owner(pid: int) -> bytes:
    return f"{pid:>{_PID_DIGITS}}\n".encode()


def lock_owner(path: Path) -> int | None:
    """The process that holds a HomeLock on `path`, or None."""
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def takes_socket(path: Path) -> bool:
    """Whether a socket can be created at `path`: it may be too long, or the file system may not support sockets."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


def service_user() -> pwd.struct_passwd | None:
    """The user that runs the servers: the current one (None), or an own account, since PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_ACCOUNT)
    except KeyError:
        pass
    try:
        subprocess.run(
            ["useradd", "--system", "--shell", "/usr/sbin/nologin", _ACCOUNT],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"},
        )
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else f"useradd: {error.strerror}"
        raise ConfigError(
            f"PostgreSQL refuses to run as root and the account {_ACCOUNT} cannot be made ({why}): "
            "run as an ordinary user, or set PIPELINE_DATABASE_URL and PIPELINE_REDIS_URL"
        ) from error
    return pwd.getpwnam(_ACCOUNT)


def make_reachable(path: Path, user: pwd.struct_passwd | None) -> None:
    """Let `user` reach `path`: give others the permission to pass its parents, not to list them."""
    for parent in path.parents if user else ():
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            try:
                parent.chmod(mode | stat.S_IXOTH)
            except OSError as error:
                raise ConfigError(f"user {user and user.pw_name} cannot pass {parent}: chmod o+x it") from error


def make_readable(tree: Path, user: pwd.struct_passwd | None) -> None:
    """Let `user` read and run what is installed under `tree`, even if a strict umask forbade it."""
    make_reachable(tree, user)
    for path in (tree, *tree.rglob("*")) if user else ():
        mode = path.lstat().st_mode
        wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if not stat.S_ISLNK(mode) and wanted != mode:
            path.chmod(wanted)


def own(path: Path, user: pwd.struct_passwd | None, mode: int) -> None:
    """Give `path` to `user` (None: do not change the owner) with this mode."""
    if user:
        shutil.chown(path, user.pw_uid, user.pw_gid)
    path.chmod(mode)
