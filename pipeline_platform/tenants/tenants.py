"""Tenants and their write keys.

A write key is shown once, and only its hash is stored. Every change is recorded in control.audit_log.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import (
    ConfigError,
    InvalidEventError,
    NoSuchThingError,
    PipelineError,
)
from pipeline_platform.event.reader import text_of
from pipeline_platform.telemetry.visible import visible
from pipeline_platform.tenants.write_keys import hash_write_key, new_write_key

_SQL = queries("tenants")
_ASKED = "asked for by an operator"
_NAME_MAX = 200  # as in the table
Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A tenant with a new write key."""

    tenant_id: int
    name: str
    key_id: int
    write_key: str


def wrong_name(name: str) -> str | None:
    """Why this name is invalid for a tenant; None if it is valid."""
    if not name.strip():
        return "a tenant's name is not blank"
    if name != visible(name):
        return "a tenant's name has no control characters and no line breaks"
    if len(name) > _NAME_MAX:
        return f"a tenant's name has at most {_NAME_MAX} characters, not {len(name)}"
    return None


def take_tenant(fields: dict[str, msgspec.Raw], field: str) -> str:
    """Remove the field that names the tenant from an operator's line, and return the name; a number becomes its text.

    InvalidEventError if the field is missing or the name is invalid.
    """
    token = bytes(fields.pop(field, msgspec.Raw()))
    try:
        name = text_of(token)
    except ValueError as error:
        raise InvalidEventError("invalid_field", f"{field} is no text: {error}") from error
    if not name:
        raise InvalidEventError("missing_field", f"no text in the field {field}")
    why = wrong_name(name)
    if why:
        raise InvalidEventError("invalid_field", f"{field}: {why}")
    return name


def add_tenant(conn: Conn, name: str, plan: str = "free", events_per_s: int | None = None) -> NewKey:
    """Add a tenant with its first write key. PipelineError if the name is taken, ConfigError if it is invalid."""
    why = wrong_name(name)
    if why:
        raise ConfigError(f"tenant {name!r} cannot be added: {why}")
    with conn.transaction():
        row = conn.execute(_SQL["add"], {"name": name, "plan": plan, "events_per_s": events_per_s}).fetchone()
        if row is None:
            raise PipelineError(f"tenant {name} exists; another key: pipeline-platform key create {name}")
        note(conn, "tenant add", _ASKED, {"tenant": name, "plan": plan})
        return create_key(conn, name)


def ensure_tenant(conn: Conn, name: str) -> int:
    """The id of a tenant, which is created if it is missing. ConfigError if the name is invalid."""
    why = wrong_name(name)
    if why:
        raise ConfigError(f"tenant {name!r} cannot be added: {why}")
    with conn.transaction():
        row = conn.execute(_SQL["add"], {"name": name, "plan": "free", "events_per_s": None}).fetchone()
        if row is None:
            return tenant_id_of(conn, name)
        note(conn, "tenant add", _ASKED, {"tenant": name})
        return row[0]


def tenant_id_of(conn: Conn, name: str) -> int:
    """The id of a tenant. NoSuchThingError suggests similar names."""
    return tenant_ids_of(conn, [name])[0]


def tenant_ids_of(conn: Conn, names: Sequence[str]) -> list[int]:
    """Ids in the order of the names. NoSuchThingError for unknown names, with similar names."""
    found: dict[str, int] = dict(conn.execute(_SQL["find"], (list(names),)).fetchall())
    unknown = [name for name in names if name not in found]
    if unknown:
        there_are = [name for (name,) in conn.execute(_SQL["names"]).fetchall()]
        near = sorted({like for name in unknown for like in difflib.get_close_matches(name, there_are)})
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise NoSuchThingError(f"no tenant {', '.join(unknown)}.{meant} See: pipeline-platform tenant list")
    return [found[name] for name in names]


def list_tenants(conn: Conn) -> list[dict[str, Any]]:
    """All tenants by name, with the number of their working write keys."""
    return _rows(conn, "list", None)


def list_keys(conn: Conn, tenant: str | None = None) -> list[dict[str, Any]]:
    """Write keys by their id, without their secrets."""
    return _rows(conn, "keys", {"tenant": tenant})


def create_key(conn: Conn, name: str, label: str = "") -> NewKey:
    """Create another write key for a tenant. NoSuchThingError for an unknown tenant."""
    tenant_id = tenant_id_of(conn, name)
    write_key = new_write_key()
    with conn.transaction():
        row = conn.execute(_SQL["add_key"], (tenant_id, hash_write_key(write_key), label)).fetchone()
        if row is None:
            raise PipelineError("the key was not stored")
        note(conn, "key create", _ASKED, {"tenant": name, "key_id": row[0], "label": label})
    return NewKey(tenant_id, name, row[0], write_key)


def rotate_key(conn: Conn, name: str, grace: timedelta) -> NewKey:
    """Create a write key. The tenant's others stop working after `grace`, so that its clients can change over."""
    with conn.transaction():
        made = create_key(conn, name, "rotated")
        params = {"tenant_id": made.tenant_id, "key_id": made.key_id, "grace": grace}
        revoked = conn.execute(_SQL["revoke_others"], params).rowcount
        note(
            conn, "key rotate", _ASKED, {"tenant": name, "key_id": made.key_id, "revoked": revoked, "grace": str(grace)}
        )
    return made


def revoke_key(conn: Conn, key_id: int) -> None:
    """Revoke a write key at once (gateways notice within key_refresh_s). NoSuchThingError for an unknown key."""
    with conn.transaction():
        if conn.execute(_SQL["revoke"], (key_id,)).fetchone() is None:
            raise NoSuchThingError(f"no working key {key_id}; see: pipeline-platform key list")
        note(conn, "key revoke", _ASKED, {"key_id": key_id})


def _rows(conn: Conn, query: str, params: dict[str, Any] | None) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], params).fetchall()
