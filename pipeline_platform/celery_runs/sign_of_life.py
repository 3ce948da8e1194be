"""Whether the process that executes a task lives: it holds an advisory lock in Dagster's database until it ends.

The server releases the lock when the connection ends: at once if the process is killed, and within a minute if its
machine is gone. A restart of PostgreSQL releases it too; then the process takes it again within seconds.
"""

import logging
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

_LOG = logging.getLogger(__name__)
_INTERVAL_S = 5.0
# A machine that is gone ends no connection: the server then asks for it after half a minute.
_KEEPALIVE = text("SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3")
_PING = text("SELECT 1")
_TAKE = text("SELECT pg_try_advisory_lock(:high, :low)")
_HOLDERS = text(
    "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
    "WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted "
    "AND l.classid = CAST(CAST(:high AS bigint) AS oid) AND l.objid = CAST(CAST(:low AS bigint) AS oid))"
)


def open_engine(url: str) -> Engine:
    """An engine whose connections are closed when they are given back. url: of SQLAlchemy's form."""
    return create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)


def is_alive(engine: Engine, task_id: str) -> bool:
    """Whether a living process executes the task."""
    high, low = _key(task_id)
    # Halves of a lock's key are shown as unsigned numbers.
    halves = {"high": high & 0xFFFFFFFF, "low": low & 0xFFFFFFFF}
    with engine.connect() as conn:
        return bool(conn.execute(_HOLDERS, halves).scalar_one())


@contextmanager
def shown(engine: Engine, task_id: str) -> Generator[None]:
    """Show that this process executes the task until the context is left."""
    stop = threading.Event()
    thread = threading.Thread(target=_keep_showing, args=(engine, task_id, stop), name="sign-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _keep_showing(engine: Engine, task_id: str, stop: threading.Event) -> None:
    high, low = _key(task_id)
    while not stop.is_set():
        try:
            with engine.connect() as conn:
                conn.execute(_KEEPALIVE)
                # The server may not have ended a former connection yet.
                while not stop.is_set() and not conn.execute(_TAKE, {"high": high, "low": low}).scalar_one():
                    stop.wait(_INTERVAL_S)
                while not stop.wait(_INTERVAL_S):
                    conn.execute(_PING)
        except SQLAlchemyError as error:
            _LOG.warning("the sign of life of task %s is lost, and shown again: %s", task_id, error)
            stop.wait(_INTERVAL_S)


def _key(task_id: str) -> tuple[int, int]:
    """Two signed 32-bit halves of a lock's key."""
    number = uuid.UUID(task_id).int
    return _signed(number >> 96), _signed(number & 0xFFFFFFFF)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
