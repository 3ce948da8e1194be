"""The platform's requirements on PostgreSQL, checked at the start, by `/readyz` and by `doctor`.

Each connection checks its own requirements (version, encoding, session settings; see connections.py), and
`schema.migrate` those of migrations. This module has the other requirements on database, role and server.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("prerequisites")
# Besides committers and workers: the gateway's side connections, keeper, mirror, console, alerts, one or two commands.
_CONNECTIONS_BESIDE = 14
_CONNECTIONS_OF_DAGSTER = 20
Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and the remedy if it failed."""

    check: str
    well: bool
    found: str
    remedy: str = ""


def findings_of_server(conn: Conn, settings: Settings) -> list[Finding]:
    """All checks, for `doctor`."""
    server = _one(conn, "server")
    return [
        _writability(server),
        _rights(server),
        _ownership(conn, server),
        _durability(server),
        _connections(conn, settings),
        _commits(conn, server),
    ]


def _writability(server: dict[str, Any]) -> Finding:
    return Finding(
        "writability",
        not server["is_read_only"],
        "read only, or a standby in recovery" if server["is_read_only"] else "takes writes",
        "let PIPELINE_DATABASE_URL name the primary (host=a,b with target_session_attrs=read-write finds it)",
    )


def _rights(server: dict[str, Any]) -> Finding:
    role, database = server["role"], server["database"]
    missing: list[str] = []
    if not server["may_create_schemas"]:
        missing.append(f"GRANT CREATE ON DATABASE {database} TO {role}")
    if not server["is_migrated"] and not server["may_create_in_public"]:
        missing.append(f"CREATE SCHEMA IF NOT EXISTS public; GRANT CREATE, USAGE ON SCHEMA public TO {role}")
    found = f"role {role} may not create what migrations make" if missing else f"role {role} may create schemas"
    return Finding("rights", not missing, found, "; ".join(missing))


def _ownership(conn: Conn, server: dict[str, Any]) -> Finding:
    others = _all(conn, "tables_of_others")
    if not others:
        return Finding("ownership", True, f"all tables are {server['role']}'s")
    owner = others[0]["owner"]
    return Finding(
        "ownership",
        False,
        f"{len(others)} tables are of {owner}, the first is {others[0]['name']}: no partitions can be added",
        f"connect as the role that ran migrate, or: GRANT {owner} TO {server['role']}",
    )


def _durability(server: dict[str, Any]) -> Finding:
    off = [name for name in ("fsync", "full_page_writes") if server[name] != "on"]
    said = f"{' and '.join(off)} off: a crash loses what was acknowledged" if off else "fsync and full_page_writes on"
    return Finding(
        "durability",
        not off,
        f"PostgreSQL {server['version']}, {said}",
        "; ".join(f"ALTER SYSTEM SET {name} = on" for name in off) + "; SELECT pg_reload_conf()",
    )


def _connections(conn: Conn, settings: Settings) -> Finding:
    allowed = int(_one(conn, "connections")["allowed"])
    needed = settings.committers + 2 * settings.workers + _CONNECTIONS_BESIDE + _CONNECTIONS_OF_DAGSTER
    return Finding(
        "connections",
        allowed >= needed,
        f"{allowed} allowed, {needed} may be needed",
        "raise max_connections and start PostgreSQL again, or the limit of the role or the database",
    )


def _commits(conn: Conn, server: dict[str, Any]) -> Finding:
    """Checks that a commit succeeds, by making one."""
    try:
        conn.execute(_SQL["prove_commit"], ("doctor",))
    except psycopg.Error as error:
        said = str(error.diag.message_primary or error).strip()
        return Finding("commits", False, f"a commit fails: {said}", remedy_of(error, server["role"]))
    return Finding("commits", True, "a commit succeeds")


def remedy_of(error: psycopg.Error, role: str) -> str:
    """The next step after a failed commit."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return "pipeline-platform migrate"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"connect as the role that ran migrate, or grant its rights to {role}"
    if isinstance(error, psycopg.errors.DiskFull):
        return "free space on PostgreSQL's disk"
    return "see PostgreSQL's log"


def _one(conn: Conn, query: str) -> dict[str, Any]:
    return _all(conn, query)[0]


def _all(conn: Conn, query: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query]).fetchall()
