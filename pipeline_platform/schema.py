"""The schema of the database: tables by migrations, functions and views as files with the current text.

`sql/migrations` is applied forward only, each file once. `sql/functions/<schema>/<name>.sql` is applied again after its
text changed, so the diff of a function is the diff of its file. Both happen in one transaction: a failure leaves the
schema unchanged. `sql/schema.sql` is the result, written by `python sql/write_schema.py` and checked by a test.
"""

import logging
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from pipeline_platform import connections
from pipeline_platform.db import connect, sql_dir
from pipeline_platform.errors import ConfigError

_LOG = logging.getLogger(__name__)
_LOCK: LiteralString = "hashtext('pipeline_platform.migrate')"
_RECORDS = """
    CREATE TABLE IF NOT EXISTS public.pipeline_migrations (
        name text PRIMARY KEY, body text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS public.pipeline_functions (
        name text PRIMARY KEY, body text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""
_BASELINE = "0001_baseline"
# The last migration before the baseline; sql/upgrades starts from it.
_FORMER = "0020_identities"


def _files(folder: str, pattern: str = "*.sql") -> dict[str, str]:
    """Texts by their path below the folder, without the extension, in order."""
    root = sql_dir() / folder
    return {str(path.relative_to(root).with_suffix("")): path.read_text() for path in sorted(root.glob(pattern))}


def _recorded(conn: psycopg.Connection[Any], table: str) -> dict[str, str]:
    found = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (f"public.{table}",)).fetchone()
    if found != (True,):
        return {}
    return dict(conn.execute(sql.SQL("SELECT name, body FROM public.{}").format(sql.Identifier(table))).fetchall())


def missing(conn: psycopg.Connection[Any]) -> list[str]:
    """Names of migrations and functions that this code has and the database lacks, in the order of their files."""
    applied, current = _recorded(conn, "pipeline_migrations"), _recorded(conn, "pipeline_functions")
    return [name for name in _files("migrations") if name not in applied] + [
        name for name, body in _files("functions", "*/*.sql").items() if current.get(name) != body
    ]


@connections.migrations_in_plain_words()
def migrate(url: str) -> list[str]:
    """Bring the database to the schema of this code; returns the names of what was applied.

    Concurrent callers wait for each other. ConfigError if an applied migration was edited since, or if the database is
    newer than this code or older than the oldest version that can be upgraded.
    """
    with connect(url, "migrate", statement_timeout_s=0, lock_timeout_s=0) as conn, conn.transaction():
        if conn.execute("SELECT pg_try_advisory_xact_lock(hashtext('pipeline_platform.migrate'))").fetchone() != (
            True,
        ):
            _LOG.warning("waiting for another migration of this database: see pg_locks, locktype advisory")
            conn.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        conn.execute(_RECORDS)
        upgraded = _upgrade_former(conn)
        return upgraded + _apply_migrations(conn) + _replace_functions(conn)


def _upgrade_former(conn: psycopg.Connection[Any]) -> list[str]:
    """Bring a database from before the baseline to it; does nothing to other databases."""
    applied = _recorded(conn, "pipeline_migrations")
    if not applied or _BASELINE in applied:
        return []
    if max(applied) != _FORMER:
        raise ConfigError(f"only a database at migration {_FORMER} is upgraded, and this one is at {max(applied)}")
    (step,) = _files("upgrades").items()
    conn.execute(cast("LiteralString", step[1]))
    conn.execute("DELETE FROM public.pipeline_migrations")
    _record(conn, "pipeline_migrations", _BASELINE, _files("migrations")[_BASELINE])
    return [step[0], _BASELINE]


def _apply_migrations(conn: psycopg.Connection[Any]) -> list[str]:
    files, applied = _files("migrations"), _recorded(conn, "pipeline_migrations")
    for name, body in applied.items():
        if files.get(name) != body:
            raise ConfigError(
                f"migration {name} in the database differs from sql/migrations: "
                "deploy the code that belongs to this database, or start from an empty one"
            )
    new = [name for name in files if name not in applied]
    for name in new:
        conn.execute(cast("LiteralString", files[name]))
        _record(conn, "pipeline_migrations", name, files[name])
    return new


def _replace_functions(conn: psycopg.Connection[Any]) -> list[str]:
    """Apply files whose text differs from the database's. A file that depends on another is tried again after it."""
    current = _recorded(conn, "pipeline_functions")
    if unknown := sorted(current.keys() - _files("functions", "*/*.sql").keys()):
        raise ConfigError(
            f"the database has functions without a file in sql/functions ({', '.join(unknown)}): deploy the code that "
            "belongs to this database. A migration that drops a function also deletes its row of pipeline_functions"
        )
    waiting = {name: body for name, body in _files("functions", "*/*.sql").items() if current.get(name) != body}
    changed = list(waiting)
    while waiting:
        failures: dict[str, psycopg.Error] = {}
        for name, body in waiting.items():
            try:
                with conn.transaction():
                    conn.execute(cast("LiteralString", body))
                    _record(conn, "pipeline_functions", name, body)
            except (
                psycopg.errors.UndefinedFunction,
                psycopg.errors.UndefinedTable,
                psycopg.errors.UndefinedColumn,
            ) as error:
                failures[name] = error
        if len(failures) == len(waiting):
            raise next(iter(failures.values()))
        waiting = {name: waiting[name] for name in failures}
    return changed


def _record(conn: psycopg.Connection[Any], table: str, name: str, body: str) -> None:
    statement = sql.SQL(
        "INSERT INTO public.{} (name, body) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET body = excluded.body, applied_at = now()"
    )
    conn.execute(statement.format(sql.Identifier(table)), (name, body))
