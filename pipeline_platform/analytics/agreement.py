"""Checks that roll-ups, exports and the account agree, for every tenant and hour.

Compares one hour of received_at at a time, in one snapshot, so the result is exact under load. The rows of an export
are counted through the export's own statement, by hour of occurred_at, type and name. These counts are compared with
the roll-ups' cells, their sum with the account's `delivered`, and the rows' identities with the accepted ones. A
tenant whose roll-ups may be outdated in that snapshot is not judged. Nothing is repaired. A difference is a bug or a
manual change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.analytics.export import count_hour
from pipeline_platform.analytics.rollups import refresh_all
from pipeline_platform.db import queries

_SQL = queries("rollups")
# Rows of a past hour change seldom. Tenants that are still not rolled up after these tries are named.
_TRIES = 5
_NAMES = 3

Conn = psycopg.Connection[Any]
# Numbers of events by hour of occurred_at, type and name.
Cells = Mapping[tuple[datetime, str, str | None], int]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference.

    kind `rollups`: in an hour of occurred_at the cells have rolled_up events, an export has exported ones. kind
    `account`: in an hour of received_at the account has delivered events in production, an export has exported ones.
    kind `identities`: the export's rows of an hour of received_at have fewer identities than rows, or other identities
    than were accepted.
    """

    kind: str
    tenant: str
    hour: datetime
    exported: int
    rolled_up: int | None = None
    delivered: int | None = None
    identities: int | None = None
    # A few of the cells that differ: type and name.
    cells: Sequence[tuple[str, str | None]] = ()

    def text(self) -> str:
        where = f"{self.tenant}, {self.hour:%Y-%m-%d %H}:00"
        if self.kind == "account":
            return f"{where}: the account has delivered {self.delivered:,}, an export {self.exported:,}"
        if self.kind == "identities":
            are_fewer = self.identities is not None and self.identities < self.exported
            of = f"{self.identities:,} events" if are_fewer else "other events than were accepted"
            return f"{where}: {self.exported:,} rows of {of}"
        names = ", ".join(f"{kind} {name or ''}".strip() for kind, name in self.cells)
        return f"{where}: the roll-ups say {self.rolled_up:,}, an export {self.exported:,} ({names})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result for one hour of received_at. waiting: tenants whose roll-ups could not be judged."""

    hour: datetime
    events: int = 0
    late: int = 0
    cells: int = 0
    tenants: int = 0
    waiting: Sequence[str] = ()
    differences: list[Difference] = field(default_factory=list[Difference])

    @property
    def holds(self) -> bool:
        return not self.differences


def agree(conn: Conn, hour: datetime) -> Agreement:
    """Refresh the marked cells, compare the hour, and record that it was compared.

    conn: in autocommit mode, outside a transaction.
    """
    found = Agreement(hour)
    for _ in range(_TRIES):
        refresh_all(conn)
        # Taken before the snapshot: changes after this time require another comparison.
        row = conn.execute(_SQL["now"]).fetchone()
        found = compare(conn, hour)
        if row and not found.waiting:
            conn.execute(_SQL["checked"], {"hour": hour, "at": row[0]})
            break
    return found


def compare(conn: Conn, hour: datetime) -> Agreement:
    """Compare one hour of received_at, in one snapshot; changes nothing."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        conn.execute("SET LOCAL statement_timeout = 0")
        names: dict[int, str] = dict(conn.execute(_SQL["tenants"], {"hour": hour}).fetchall())
        waiting = {tenant_id for (tenant_id,) in conn.execute(_SQL["unrolled"], {"hour": hour})}
        cells: dict[int, dict[tuple[datetime, str, str | None], int]] = {tenant_id: {} for tenant_id in names}
        for tenant_id, at, kind, name, events in conn.execute(_SQL["cells"], {"hour": hour}):
            cells[tenant_id][at, kind, name] = events
        exported = {tenant_id: count_hour(conn, tenant_id, hour) for tenant_id in names}
        delivered = conn.execute(_SQL["delivered"], {"hour": hour, "tenant_ids": list(names)}).fetchall()
        other = conn.execute(_SQL["identities"], {"hour": hour}).fetchall()
    differences = [
        Difference("account", names[tenant_id], hour, sum(exported[tenant_id].values()), delivered=counted - shadow)
        for tenant_id, counted, shadow in delivered
        if counted - shadow != sum(exported[tenant_id].values())
    ]
    differences += [
        Difference("identities", names.get(tenant_id, str(tenant_id)), hour, rows, identities=identities)
        for tenant_id, rows, identities in other
    ]
    for tenant_id, name in names.items():
        if tenant_id not in waiting:
            differences += _differing(name, cells[tenant_id], exported[tenant_id])
    counted = [(key, events) for found in exported.values() for key, events in found.items()]
    return Agreement(
        hour,
        events=sum(events for _, events in counted),
        late=sum(events for (at, *_), events in counted if at < hour),
        cells=sum(len(found) for found in cells.values()),
        tenants=sum(1 for found in exported.values() if found),
        waiting=[names[tenant_id] for tenant_id in names if tenant_id in waiting],
        differences=differences,
    )


def _differing(tenant: str, cells: Cells, exported: Cells) -> list[Difference]:
    wrong = [key for key in cells.keys() | exported.keys() if cells.get(key, 0) != exported.get(key, 0)]
    found: list[Difference] = []
    for hour in sorted({at for at, *_ in wrong}):
        here = sorted(((kind, name) for at, kind, name in wrong if at == hour), key=str)[:_NAMES]
        found.append(Difference("rollups", tenant, hour, _of(exported, hour), rolled_up=_of(cells, hour), cells=here))
    return found


def _of(cells: Cells, hour: datetime) -> int:
    return sum(events for (at, *_), events in cells.items() if at == hour)
