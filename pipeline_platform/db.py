"""Connections and named queries: the only module that knows where `sql/` is.

Every connection has a name (application_name) and time limits, and states its session settings, which connections.py
checks.
"""

import functools
import re
from pathlib import Path
from typing import Any, Literal, LiteralString, cast

import psycopg
from psycopg import sql

from pipeline_platform import connections
from pipeline_platform.errors import ConfigError

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

    They ship with the code, so they count as literals: no value is ever put into their text. Comment lines and
    indentation are removed, because psycopg parses a text over 4,096 characters again at each call.
    """
    text = (sql_dir() / "queries" / f"{room}.sql").read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    found = {name: _without_comments(body).rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    return cast("dict[str, LiteralString]", found)


def composed(query: LiteralString, **parts: sql.Composable) -> LiteralString:
    """A query with its `{name}` parts filled in. It is called when a module is loaded, so the text is constant."""
    return cast("LiteralString", sql.SQL(query).format(**parts).as_string(None))


def in_schema(query: LiteralString, schema: Literal["analytics", "shadow"]) -> LiteralString:
    """A query for the delivered rows of one schema: `{schema}` is its name, `{is_shadow}` tells which of the two."""
    return composed(query, schema=sql.Identifier(schema), is_shadow=sql.Literal(schema == "shadow"))


def _without_comments(body: str) -> str:
    lines = (line.strip() for line in body.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


def connect(
    url: str, who: str, *, statement_timeout_s: float = 30, lock_timeout_s: float = 10, more: str = ""
) -> psycopg.Connection[Any]:
    """A connection in autocommit mode. `who` is shown in pg_stat_activity. Zero seconds: no limit.

    UnfitServerError if the server answers but cannot be used.
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
