"""`up` starts the platform and keeps it running; `down` stops it and waits until all processes have ended.

When `up` ends (Ctrl-C, SIGTERM, a closed terminal, an error while starting), it stops every child in order. If it is
killed with SIGKILL, its children end by their death signal and the watchman ends the rest. Logs: ``home/logs``.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import psutil
import psycopg
import redis

from pipeline_platform import db, schema
from pipeline_platform.errors import ConfigError, ServiceError
from pipeline_platform.local.services import Endpoints, end_orphans, process
from pipeline_platform.local.services.first_hour import note_first_hour
from pipeline_platform.local.services.home_files import HomeLock, lock_owner, usable_home
from pipeline_platform.local.supervisor import dagster as dagster_programs
from pipeline_platform.local.supervisor import programs, screen
from pipeline_platform.local.supervisor.children import Child, Children
from pipeline_platform.local.supervisor.detach import up_detached
from pipeline_platform.local.supervisor.leftovers import end_tagged, tag_of
from pipeline_platform.settings import Settings

# Dagster makes Dagster's children. Announce is called with the home and the addresses when everything serves.
Dagster = Callable[[Settings], list[Child]]
Announce = Callable[[Path, Endpoints], None]

_SQL = db.queries("supervisor")
_LEFTOVER_GRACE_S = 10.0
_DOWN_LIMIT_S = 180.0
_SIGNAL_EVERY_S = 10.0
_MB = 1 << 20
_REDIS_S = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that run besides the data plane."""

    dagster: Dagster | None
    legacy: bool


class _StopRequested(BaseException):
    """A requested stop; not an error."""


def up(settings: Settings, *, detach: bool = False, dagster: bool = True, legacy: bool = False) -> int:
    """Start everything, print the addresses, and keep it running until told to stop.

    detach: return when it serves. legacy: with the simulated old pipeline. Returns the exit code. ConfigError if it
    cannot work (home in use, port taken), ServiceError if a part does not start.
    """
    if detach:
        return up_detached(_at_home(settings), dagster=dagster, legacy=legacy)
    supervise(settings, dagster_programs.dagster if dagster else None, legacy=legacy)
    screen.say("stopped")
    return 0


def down(settings: Settings) -> int:
    """Stop the platform of this home, however it was started; returns 0 when all its processes have ended.

    ServiceError if one does not end.
    """
    home = settings.home.resolve()
    lock = home / "up.lock"
    found = False
    with screen.busy("stopping"):
        while owner := lock_owner(lock):
            found = True
            _end(owner, home)
        if lock.exists():
            with HomeLock(lock):
                found = _sweep(home) or found
    screen.say("stopped" if found else f"nothing runs in {home}")
    return 0


def supervise(
    settings: Settings, dagster: Dagster | None, announce: Announce = screen.summary, *, legacy: bool = False
) -> None:
    """Run the platform until a stop signal; call `announce(home, endpoints)` when it serves."""
    settings = _at_home(settings)
    with HomeLock(settings.home / "up.lock"):
        _sweep(settings.home)
        settings = _with_ports(settings, legacy=legacy)
        with _watchman(settings.home), contextlib.suppress(_StopRequested), _stop_signals() as stop_requested:
            _run(settings, Parts(dagster, legacy), announce, stop_requested)


def _run(settings: Settings, parts: Parts, announce: Announce, stop_requested: Callable[[], bool]) -> None:
    children = Children(screen.serves)

    def write() -> None:
        pids = {"supervisor": os.getpid(), **children.pids()}
        replace(endpoints, pids=pids).write(settings.home)

    try:
        with screen.busy("starting"):
            settings, endpoints = _start(children, settings, parts)
        write()
        announce(settings.home, endpoints)
        children.watch(write, stop_requested)
    finally:
        (settings.home / "endpoints.json").unlink(missing_ok=True)
        with screen.busy("stopping"):
            children.stop()


def _start(children: Children, settings: Settings, parts: Parts) -> tuple[Settings, Endpoints]:
    by_socket: dict[str, str] = {}
    for name, field in (("postgres", "database_url"), ("redis", "redis_url")):
        if not getattr(settings, field):
            server = programs.Embedded(name, settings.home)
            children.start(server.child)
            settings = settings.model_copy(update={field: server.url})
            by_socket[field] = server.socket_url
        elif name == "redis":
            look_at_redis(settings.redis_url)
    _prepare(settings, parts)
    # Only the gateway and the workers use sockets, for speed. All others use the URL that works from anywhere.
    fast = settings.model_copy(update=by_socket)
    children.start(
        programs.gateway(fast),
        programs.pool(fast),
        programs.mirror(settings),
        programs.console(settings),
        *(programs.legacy(settings) if parts.legacy else ()),
        *(parts.dagster(settings) if parts.dagster else ()),
    )
    # Last, so that it does not alert on parts that are still starting.
    children.start(programs.alerts(settings))
    return settings, Endpoints(
        gateway=programs.gateway_url(settings),
        console=programs.console_url(settings),
        dagster=f"http://127.0.0.1:{settings.dagster_port}" if parts.dagster else None,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
    )


def look_at_redis(url: str) -> None:
    """Print a message if the user's own Redis cannot be used. The platform works without it."""
    times = {"socket_timeout": _REDIS_S, "socket_connect_timeout": _REDIS_S}
    with redis.Redis.from_url(url, **times) as client:  # pyright: ignore[reportUnknownMemberType]
        try:
            client.get("pipeline-platform")
        except redis.RedisError as error:
            screen.fails(
                f"redis refuses or does not answer ({error}): events are processed without it, look-ups are slower. "
                "See PIPELINE_REDIS_URL"
            )


def _prepare(settings: Settings, parts: Parts) -> None:
    try:
        schema.migrate(settings.database_url)
        if parts.dagster:
            dagster_programs.ensure_storage(settings.database_url)
        with db.connect(settings.database_url, "supervisor") as conn:
            conn.execute(_SQL["forget_sensors"])
            if parts.dagster:
                conn.execute(_SQL["expect_sensors"])
                note_first_hour(conn, settings.home, settings.retention)
            if parts.legacy:
                conn.execute(_SQL["forward_to_simulation"], (programs.legacy_url(settings),))
    except ConfigError:
        raise
    except psycopg.OperationalError as error:
        raise ConfigError(f"PIPELINE_DATABASE_URL does not answer: {error}") from error


def _at_home(settings: Settings) -> Settings:
    home = usable_home(settings.home)
    free, needed = shutil.disk_usage(home).free, settings.disk_free_bytes_min
    if free < needed:
        raise ConfigError(
            f"{home} has {free / _MB:,.0f} MB of free space; below {needed / _MB:,.0f} MB the gateway takes no events: "
            "free some, set PIPELINE_HOME to another disk, or set PIPELINE_DISK_FREE_BYTES_MIN lower"
        )
    return settings.model_copy(update={"home": home})


def _sweep(home: Path) -> bool:
    """End processes that a killed platform left in `home`; the caller holds its lock. True if there were any."""
    (home / "endpoints.json").unlink(missing_ok=True)
    found = end_tagged(tag_of(home), _LEFTOVER_GRACE_S)
    return bool(end_orphans(home) or found)


def _with_ports(settings: Settings, *, legacy: bool) -> Settings:
    return settings.model_copy(
        update={
            "gateway_port": _port(settings.gateway_host, settings.gateway_port, "gateway"),
            "console_port": _port(settings.console_host, settings.console_port, "console"),
            "dagster_port": _port("127.0.0.1", settings.dagster_port, "dagster"),
            **({"legacy_port": _port("127.0.0.1", settings.legacy_port, "legacy")} if legacy else {}),
        }
    )


def _port(host: str, port: int, name: str) -> int:
    """`port`, or a free one for 0. ConfigError if it is taken."""
    if port == 0:
        return process.free_port(host=host)
    try:
        process.try_port(host, port)
    except OSError as error:
        option = "" if name == "legacy" else f"--{name}-port or "
        raise ConfigError(
            f"port {port} on {host} cannot be used for the {name} ({error.strerror}): "
            f"choose another with {option}PIPELINE_{name.upper()}_PORT, 0 for any free one"
        ) from error
    return port


@contextlib.contextmanager
def _stop_signals() -> Generator[Callable[[], bool]]:
    """Raise _StopRequested at the first stop signal; ignore later ones, so that they do not interrupt the stop.

    Yields a function that tells whether a signal came: an exception raised inside a finalizer is lost, so the loop must
    check.
    """
    requested = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal requested
        if not requested:
            requested = True
            raise _StopRequested

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield lambda: requested
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _watchman(home: Path) -> Generator[None]:
    """Run the watchman while the context is open."""
    with process.open_log(home / "logs" / "watchman.log") as output:
        watchman = subprocess.Popen(
            [sys.executable, "-m", "pipeline_platform.local.supervisor.watchman", tag_of(home, os.getpid())],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            start_new_session=True,
        )
    try:
        yield
    finally:
        watchman.communicate()


def _end(supervisor: int, home: Path) -> None:
    """Stop this supervisor; return when it has ended."""
    deadline = time.monotonic() + _DOWN_LIMIT_S
    try:
        process = psutil.Process(supervisor)
        while time.monotonic() < deadline:
            # Repeat the signal: one that arrives at a bad moment is lost.
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_SIGNAL_EVERY_S)
                return
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise ConfigError(f"process {supervisor} is another user's: run `down` as that user") from error
    raise ServiceError(f"process {supervisor} does not end: see {home / 'logs'}, or kill -9 {supervisor}")
