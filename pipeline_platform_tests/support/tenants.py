"""Tenants, each with a write key."""

from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline_platform.event.types import TenantId
from pipeline_platform.tenants.write_keys import hash_write_key, new_write_key


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who sends, with which key."""

    tenant_id: TenantId
    name: str
    write_key: str


def add_tenant(conn: psycopg.Connection[Any], name: str = "acme", *, plan: str = "free") -> Tenant:
    """A new tenant; a name is given once in a database."""
    key = new_write_key()
    row = conn.execute(
        "INSERT INTO control.tenants (name, plan) VALUES (%s, %s) RETURNING tenant_id", (name, plan)
    ).fetchone()
    assert row
    conn.execute("INSERT INTO control.write_keys (key_hash, tenant_id) VALUES (%s, %s)", (hash_write_key(key), row[0]))
    return Tenant(TenantId(row[0]), name, key)


def add_tenants(conn: psycopg.Connection[Any], *names: str) -> list[Tenant]:
    return [add_tenant(conn, name) for name in names]
