"""Connections, named queries and migrations: the only module that knows where `sql/` is.

Every connection says who it is (application_name), is bounded in time, and states what its session needs, which
connections.py checks. Failing migrations leave the schema as it was: each is one transaction.
"""

import functools
import logging
import re
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg

from pipeline_platform import connections
from pipeline_platform.errors import ConfigError

_LOG = logging.getLogger(__name__)
_SQL_PLACES = (Path(__file__).parent / "_sql", Path(__file__).parent.parent / "sql")


def sql_dir() -> Path:
    """`sql/` of the checkout, or its copy inside the installed wheel."""
    for place in _SQL_PLACES:
        if place.is_dir():
            return place
    raise ConfigError(f"no SQL files at {' or '.join(map(str, _SQL_PLACES))}: reinstall pipeline-platform")


@functools.cache
def queries(room: str) -> dict[str, LiteralString]:
    """The named queries of `sql/queries/<room>.sql`: each starts at a line ``-- name: NAME``.

    They ship with the code, so they count as literals: no value is ever put into their text. Without the lines that
    are comments and without indentation: psycopg parses a text over 4,096 characters anew each time.
    """
    text = (sql_dir() / "queries" / f"{room}.sql").read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    found = {name: _without_comments(body).rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    return cast("dict[str, LiteralString]", found)


def _without_comments(body: str) -> str:
    lines = (line.strip() for line in body.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


def connect(
    url: str, who: str, *, statement_timeout_s: float = 30, lock_timeout_s: float = 10, more: str = ""
) -> psycopg.Connection[Any]:
    """A connection in autocommit mode; `who` is shown in pg_stat_activity. Zero seconds: no limit.

    UnfitServerError where the server answers and cannot be used as it is.
    """
    session = connections.Session(who, statement_timeout_s, lock_timeout_s, more)
    with connections.in_plain_words():
        conn = psycopg.Connection[Any].connect(url, **session.parameters(url))
    try:
        connections.check_server(conn.info)
        session.check(conn.info, conn.execute(session.proof).fetchone())
    except BaseException:
        conn.close()
        raise
    return conn


async def connect_async(
    url: str, who: str, *, statement_timeout_s: float = 30, lock_timeout_s: float = 10, more: str = ""
) -> psycopg.AsyncConnection[Any]:
    """`connect`, for the event loop."""
    session = connections.Session(who, statement_timeout_s, lock_timeout_s, more)
    with connections.in_plain_words():
        conn = await psycopg.AsyncConnection[Any].connect(url, **session.parameters(url))
    try:
        connections.check_server(conn.info)
        session.check(conn.info, await (await conn.execute(session.proof)).fetchone())
    except BaseException:
        await conn.close()
        raise
    return conn


def missing_migrations(conn: psycopg.Connection[Any]) -> list[str]:
    """Names of migrations that this code has and the database has not, in order."""
    applied = {name for (name,) in conn.execute("SELECT name FROM public.pipeline_migrations")}
    return [path.stem for path in sorted((sql_dir() / "migrations").glob("*.sql")) if path.stem not in applied]


@connections.migrations_in_plain_words()
def migrate(url: str) -> list[str]:
    """Apply what is missing of `sql/migrations`, in order; returns their names.

    Concurrent callers wait for each other. ConfigError where an applied migration was edited since, or the database
    is newer than this code.
    """
    files = {path.stem: path.read_text() for path in sorted((sql_dir() / "migrations").glob("*.sql"))}
    with connect(url, "migrate", statement_timeout_s=0, lock_timeout_s=0) as conn:
        if conn.execute("SELECT pg_try_advisory_lock(hashtext('pipeline_platform.migrate'))").fetchone() != (True,):
            _LOG.warning("waiting for another migration of this database: see pg_locks, locktype advisory")
            conn.execute("SELECT pg_advisory_lock(hashtext('pipeline_platform.migrate'))")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS public.pipeline_migrations "
            "(name text PRIMARY KEY, body text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = dict(conn.execute("SELECT name, body FROM public.pipeline_migrations").fetchall())
        for name, body in applied.items():
            if files.get(name) != body:
                raise ConfigError(
                    f"migration {name} in the database differs from sql/migrations: "
                    "deploy the code that belongs to this database, or start from an empty one"
                )
        missing = [name for name in files if name not in applied]
        for name in missing:
            with conn.transaction():
                conn.execute(cast("LiteralString", files[name]))
                conn.execute("INSERT INTO public.pipeline_migrations (name, body) VALUES (%s, %s)", (name, files[name]))
        return missing
