"""Reads the description of the old pipeline from a TOML file into the database: where to forward, where its output is.

    [forward]
    url = "https://events.example.com/v1/batch"
    headers = { X-Source = "mirror" }
    retries = 3

    [output]
    table = "public.old_events"
    settle_s = 900
    compared = ["type", "name", "user_id", "properties"]

    [output.columns]
    tenant = "account_name"          # or tenant_id
    message_id = "msg_id"
    received_at = "inserted_at"
    type = "kind"
    properties = "payload"

Columns that are not named are NULL and must not be compared. Everything is first checked against the catalogue. An
error raises ConfigError and changes nothing.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError
from pipeline_platform.migration.identities import store_identities

_SQL = queries("mirror")
_TYPES: dict[str, LiteralString] = {
    "message_id": "text", "type": "text", "name": "text", "user_id": "text", "anonymous_id": "text",
    "group_id": "text", "previous_id": "text", "occurred_at": "timestamptz", "received_at": "timestamptz",
    "delivered_at": "timestamptz", "properties": "jsonb", "traits": "jsonb", "context": "jsonb",
}  # fmt: skip
_NEEDED = ("message_id", "received_at")
# Types whose values may not be castable, and what stands for a value that is no JSON: its text. NULL stays NULL.
_UNCERTAIN = ("text", "character", "json", "bigint", "numeric")
_UNREADABLE: LiteralString = "WHEN o.{column} IS NOT NULL THEN to_jsonb(o.{column}::text)"
_SAMPLE_ROWS = 10_000


class Forward(msgspec.Struct, forbid_unknown_fields=True):
    """Where every event is sent."""

    url: str | None = None
    headers: dict[str, str] = {}
    retries: int = 0
    timeout_s: float = 5.0
    requests_at_once: int = 32
    give_up_s: float = 3600.0


class Output(msgspec.Struct, forbid_unknown_fields=True):
    """The output of the old pipeline. No table: that of the simulated one."""

    table: str | None = None
    columns: dict[str, str] = {}
    settle_s: float = 300.0
    compared: tuple[str, ...] = ("type", "name", "user_id", "anonymous_id", "properties", "traits", "context")


class Looked(msgspec.Struct, frozen=True):
    """What some rows of the old pipeline's own table are like. unread: with JSON that cannot be read."""

    rows: int
    no_tenant: int
    no_message_id: int
    no_time: int
    unread: int

    @property
    def text(self) -> str:
        return (
            f"looked at {self.rows:,} of its rows: {self.no_tenant:,} without a known tenant, {self.no_message_id:,} "
            f"without a messageId, {self.no_time:,} without a time, {self.unread:,} with JSON that cannot be read"
        )


class LegacyTarget(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    forward: Forward = msgspec.field(default_factory=Forward)
    output: Output = msgspec.field(default_factory=Output)


def read_file(path: Path) -> LegacyTarget:
    """Raises ConfigError if the file is not a valid description."""
    try:
        target = msgspec.convert(tomllib.loads(path.read_text()), LegacyTarget)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    url = target.forward.url
    if url is not None and not url.startswith(("http://", "https://")):
        raise ConfigError(f"{path}: forward.url must begin with http:// or https://, not {url!r}")
    if url is not None and "@" in urlsplit(url).netloc:
        raise ConfigError(f"{path}: forward.url must hold no user and password: put them into headers (Authorization)")
    unprintable = [name for name, value in target.forward.headers.items() if not f"{name}{value}".isprintable()]
    if unprintable:
        raise ConfigError(f"{path}: forward.headers: {unprintable[0]!r} or its value has control characters")
    if not target.output.compared:
        raise ConfigError(f"{path}: output.compared is empty, so nothing would be compared: name at least type")
    unknown = [name for name in target.output.compared if name not in _TYPES]
    if unknown:
        raise ConfigError(f"{path}: output.compared names {unknown[0]!r}; there are: {', '.join(_TYPES)}")
    return target


def configure(conn: psycopg.Connection[Any], target: LegacyTarget, *, dry_run: bool = False) -> Looked | None:
    """Apply the configuration in one transaction. Raises ConfigError if the table or a column does not exist.

    Returns what the first rows of a table of the user's own are like.
    """
    output, forward = target.output, target.forward
    looked = None
    with conn.transaction(force_rollback=dry_run):
        _replace_view(conn, output)
        params = {
            "forward_url": forward.url, "headers": Jsonb(forward.headers), "retries": forward.retries,
            "timeout_s": forward.timeout_s, "requests_at_once": forward.requests_at_once,
            "give_up_s": forward.give_up_s, "settle_s": output.settle_s, "compared": list(output.compared),
            "output_table": output.table,
        }  # fmt: skip
        try:
            conn.execute(_SQL["configure"], params)
        except psycopg.errors.CheckViolation as error:
            raise ConfigError(f"forward: {error.diag.message_primary}") from error
        if output.table:
            looked = _read_through(conn, output)
        detail = {"forward_url": forward.url, "output_table": output.table}
        note(conn, "mirror configure", "asked for by an operator", detail)
    return looked


def shown(conn: psycopg.Connection[Any]) -> Mapping[str, Any]:
    """The current configuration and the mirror's state, as JSON. Headers by name only: their values may be secret."""
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_SQL["show"]).fetchone() or {}
    return found | {"headers": sorted(found.get("headers", {}))}


def keep_key(conn: psycopg.Connection[Any], tenant_id: int, write_key: str) -> None:
    """Store the write key that authorizes a tenant's requests to the old pipeline."""
    with conn.transaction():
        conn.execute(_SQL["keep_key"], (tenant_id, write_key))
        note(conn, "mirror key", "asked for by an operator", {"tenant_id": tenant_id})


def acknowledge_losses(conn: psycopg.Connection[Any], reason: str, tenant_id: int | None = None) -> dict[str, int]:
    """Acknowledge what the mirror lost; returns the number of events by cause. tenant_id: None: of all tenants.

    Until then they keep the old pipeline from being switched off. They stay listed as lost.
    """
    with conn.transaction():
        taken: dict[str, int] = dict(conn.execute(_SQL["acknowledge_losses"], {"tenant_id": tenant_id}).fetchall())
        if taken:
            note(conn, "mirror acknowledge", reason, {"tenant_id": tenant_id, "events": sum(taken.values())})
    return taken


def _replace_view(conn: psycopg.Connection[Any], output: Output) -> None:
    view = _view_over(conn, output) if output.table else _view_over_simulation()
    try:
        conn.execute(view)
    except (psycopg.errors.CannotCoerce, psycopg.errors.WrongObjectType) as error:
        raise ConfigError(f"{output.table} cannot be read as configured: {error.diag.message_primary}") from error


def _view_over_simulation() -> sql.Composed:
    columns = sql.SQL(", ").join(
        sql.SQL("arrived_at AS received_at") if name == "received_at" else sql.Identifier(name)
        for name in ("tenant_id", "event_id", *_TYPES)
    )
    return sql.SQL("CREATE OR REPLACE VIEW legacy.output AS SELECT {}, digest FROM legacy.events").format(columns)


def _view_over(conn: psycopg.Connection[Any], output: Output) -> sql.Composed:
    assert output.table
    there = _columns_of(conn, output.table)
    tenant = [name for name in ("tenant", "tenant_id") if name in output.columns]
    missing = [name for name in _NEEDED if name not in output.columns]
    if len(tenant) != 1:
        raise ConfigError("[output.columns] needs either tenant (a name) or tenant_id")
    if missing:
        raise ConfigError(f"[output.columns] needs {missing[0]}")
    for name, column in output.columns.items():
        if name not in (*_TYPES, "tenant", "tenant_id"):
            raise ConfigError(f"[output.columns] has {name!r}; there are: tenant, tenant_id, {', '.join(_TYPES)}")
        if column not in there:
            raise ConfigError(f"{output.table} has no column {column!r} (for {name}); it has: {', '.join(there)}")
    unmapped = [name for name in output.compared if name not in output.columns]
    if unmapped:
        raise ConfigError(f"output.compared names {unmapped[0]}, which [output.columns] does not")
    columns = [
        _column(name, kind, output.columns[name], there[output.columns[name]])
        if name in output.columns
        else sql.SQL("NULL::{} AS {}").format(sql.SQL(kind), sql.Identifier(name))
        for name, kind in _TYPES.items()
    ]
    by_name = tenant[0] == "tenant"
    return sql.SQL(
        "CREATE OR REPLACE VIEW legacy.output AS "
        "SELECT {tenant}, legacy.event_id_of(o.{message_id}::text) AS event_id, {columns}, NULL::bigint AS digest "
        "FROM {table} AS o {join}"
    ).format(
        tenant=sql.SQL("t.tenant_id")
        if by_name
        else _column("tenant_id", "integer", output.columns["tenant_id"], there[output.columns["tenant_id"]]),
        message_id=sql.Identifier(output.columns["message_id"]),
        columns=sql.SQL(", ").join(columns),
        table=sql.Identifier(*output.table.split(".")),
        # A row of an unknown tenant stays visible: a comparison counts it.
        join=sql.SQL("LEFT JOIN control.tenants AS t ON t.name = o.{}::text").format(
            sql.Identifier(output.columns[tenant[0]])
        )
        if by_name
        else sql.SQL(""),
    )


def _column(name: str, kind: LiteralString, column: str, column_type: str) -> sql.Composed:
    names = {"column": sql.Identifier(column), "kind": sql.SQL(kind), "name": sql.Identifier(name)}
    # A time without a zone is UTC. A plain cast would use the time zone of each session.
    if column_type.startswith("timestamp without"):
        return sql.SQL("(o.{column} AT TIME ZONE 'UTC')::{kind} AS {name}").format(**names)
    # One value that cannot be read must not end a comparison: it is a difference, or a row without a tenant or time.
    if kind != "text" and column_type.startswith(_UNCERTAIN):
        unreadable = sql.SQL(_UNREADABLE if kind == "jsonb" else "").format(**names)
        return sql.SQL(
            "CASE WHEN pg_input_is_valid(o.{column}::text, '{kind}') THEN o.{column}::text::{kind} {unreadable} END "
            "AS {name}"
        ).format(**names, unreadable=unreadable)
    return sql.SQL("o.{column}::{kind} AS {name}").format(**names)


def _columns_of(conn: psycopg.Connection[Any], table: str) -> dict[str, str]:
    """The columns with their types."""
    rows = conn.execute(_SQL["columns_of"], (sql.Identifier(*table.split(".")).as_string(conn),)).fetchall()
    if not rows:
        raise ConfigError(
            f"there is no table or view {table!r} in the platform's database (see postgres_fdw for others)"
        )
    return dict(rows)


def _read_through(conn: psycopg.Connection[Any], output: Output) -> Looked:
    """Store the identities of all rows. A column that cannot be cast fails here, and not in the first comparison."""
    try:
        row = conn.execute(_SQL["look_at_rows"], {"rows": _SAMPLE_ROWS}).fetchone()
        store_identities(conn)
    except psycopg.DataError as error:
        raise ConfigError(f"{output.table} cannot be read as configured: {error.diag.message_primary}") from error
    looked = Looked(*(row or ()))
    _refuse_nonsense(looked, output)
    return looked


def _refuse_nonsense(looked: Looked, output: Output) -> None:
    """ConfigError if no row at all can be used: a column is named for something that it does not hold."""
    never = {
        "a tenant that is known": looked.no_tenant,
        "a messageId": looked.no_message_id,
        "a time": looked.no_time,
        "JSON that can be read": looked.unread,
    }
    for what, rows in never.items():
        if looked.rows and rows == looked.rows:
            raise ConfigError(
                f"{output.table} cannot be read as configured: none of the {rows:,} rows that were looked at has "
                f"{what}. See [output.columns]"
            )
