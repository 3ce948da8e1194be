"""What production holds of an hour in one snapshot, and whether that can be exported."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.errors import NotNowError, PipelineError
from pipeline_platform.warehouse.files import Tally, Tenant

_SQL = queries("warehouse")
_ROLLUPS = queries("rollups")
_NAMES = 3

Conn = psycopg.Connection[Any]


class NumbersDifferError(PipelineError):
    """The file, production and the account do not have the same events, so the version was not published."""


@dataclass(frozen=True, slots=True)
class Content:
    """What production held of the hour in the snapshot that was exported. delivered: by the account."""

    refreshes: int
    tenants: Mapping[int, Tenant]
    tallies: Mapping[int, Tally]
    delivered: Mapping[int, int]
    transforms: Sequence[str]


@contextmanager
def one_snapshot(conn: Conn) -> Generator[None]:
    """A transaction whose statements all see the same rows."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def read_content(conn: Conn, hour: datetime) -> Content | None:
    """What is exported, from the caller's snapshot; None if changes of it are not counted yet."""
    state = row_of(conn, "hour", hour)
    if state is None or state["is_unrolled"]:
        return None
    require_delivered(state, hour)
    names = conn.execute(_ROLLUPS["tenants"], {"hour": hour}).fetchall()
    tenants = {tenant_id: Tenant(tenant_id, name) for tenant_id, name in names}
    tallies = {tenant_id: _tally(conn, hour, tenant_id) for tenant_id in tenants}
    counted = conn.execute(_ROLLUPS["delivered"], {"hour": hour, "tenant_ids": list(tenants)}).fetchall()
    return Content(
        state["refreshes"],
        tenants,
        {tenant_id: tally for tenant_id, tally in tallies.items() if tally.events},
        {tenant_id: delivered - shadow for tenant_id, delivered, shadow in counted if delivered != shadow},
        [version for (version,) in conn.execute(_SQL["transforms"], {"hour": hour})],
    )


def require_delivered(state: Mapping[str, Any], hour: datetime) -> None:
    """NotNowError if the hour is not sealed or has events in flight."""
    if not state["is_sealed"]:
        raise NotNowError(
            f"the hour {hour:%Y-%m-%d %H}:00 is not sealed: materialize delivered_events first, or leave it to the "
            "schedule hourly_exports"
        )
    if state["in_flight"]:
        raise NotNowError(
            f"{state['in_flight']:,} events of {hour:%Y-%m-%d %H}:00 are in flight: materialize delivered_events first"
        )


def require_equal(found: Mapping[int, Tally], content: Content, hour: datetime) -> None:
    """NumbersDifferError if the file, production and the account do not have the same events of each tenant."""
    wrong: list[str] = []
    none = Tally(0, "")
    for tenant_id in sorted(found.keys() | content.tallies.keys() | content.delivered.keys()):
        in_file, in_table = found.get(tenant_id, none), content.tallies.get(tenant_id, none)
        delivered = content.delivered.get(tenant_id, 0)
        if in_file != in_table or in_file.events != delivered:
            tenant = content.tenants.get(tenant_id)
            wrong.append(
                f"{tenant.name if tenant else tenant_id}: {in_file.events:,} in the file, {in_table.events:,} in "
                f"analytics.events, {delivered:,} delivered by the account"
                + (", other events" if in_file.events == in_table.events == delivered else "")
            )
    if wrong:
        more = f", and {len(wrong) - _NAMES} more tenants" if len(wrong) > _NAMES else ""
        raise NumbersDifferError(
            f"the export of {hour:%Y-%m-%d %H}:00 was not published, because the numbers differ: "
            f"{'; '.join(wrong[:_NAMES])}{more}. See what changed: pipeline-platform audit"
        )


def row_of(conn: Conn, query: str, hour: datetime, **more: Any) -> dict[str, Any] | None:
    """The row of an hour that a query of warehouse.sql finds."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], {"hour": hour, **more}).fetchone()


def _tally(conn: Conn, hour: datetime, tenant_id: int) -> Tally:
    row = conn.execute(_SQL["tally"], {"hour": hour, "tenant_id": tenant_id}).fetchone()
    assert row
    return Tally(*row)
