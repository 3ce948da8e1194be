"""Finds what the old pipeline dropped by comparing both outputs by identity, not by its own reports.

Only events accepted while the old pipeline was production are compared. The platform itself delivers later events.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.migration.identities import store_identities
from pipeline_platform.tenants import tenants

_SQL = queries("recovery")
# For hash joins over an hour with millions of events.
_WORK_MEM = "256MB"


@dataclass(frozen=True, slots=True)
class Window:
    """Of received_at: start inclusive, end exclusive; tenant_ids: None for all."""

    start: datetime
    end: datetime
    tenant_ids: Sequence[int] | None = None

    def params(self) -> dict[str, Any]:
        tenant_ids = None if self.tenant_ids is None else list(self.tenant_ids)
        return {"start": self.start, "end": self.end, "tenant_ids": tenant_ids}


@dataclass(frozen=True, slots=True)
class Dropped:
    """Events that production lacks, by tenant and by the stage that reported the loss ('unreported': none did).

    already: events of the window that earlier recoveries brought in. samples: a few event ids.
    """

    tenants: dict[str, int]
    stages: dict[str, int]
    already: int
    samples: list[str]

    @property
    def events(self) -> int:
        return sum(self.tenants.values())


def find_dropped(conn: psycopg.Connection[Any], window: Window) -> Dropped:
    """Count the dropped events. conn: in autocommit mode, without a short statement time-out."""
    store_identities(conn, window.start)
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
        rows = cursor.execute(_SQL["dropped"], window.params()).fetchall()
        already = cursor.execute(_SQL["recovered_before"], window.params()).fetchone() or {"count": 0}
    by_tenant: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for row in rows:
        by_tenant[row["tenant"]] += row["events"]
        stages[row["stage"]] += row["events"]
    samples = [sample for row in rows for sample in row["samples"]][:10]
    return Dropped(dict(by_tenant), dict(stages), already["count"], samples)


def tenant_ids_of(conn: psycopg.Connection[Any], names: Sequence[str]) -> list[int] | None:
    """Ids by name; None for no names. Raises NoSuchThingError for an unknown name."""
    return tenants.tenant_ids_of(conn, names) if names else None
