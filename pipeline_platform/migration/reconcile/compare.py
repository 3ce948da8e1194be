"""The comparison of one window, in PostgreSQL. Only parts that differ are compared event by event.

Both outputs are summed by place (a share of a tenant's events), and joined only where the sums differ.
It uses one snapshot and temporary tables, and changes only rows in the schema `reconcile`. docs/decisions has the cost.
If it is cancelled or killed, nothing remains; run it again.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pipeline_platform.db import queries
from pipeline_platform.migration.identities import store_identities
from pipeline_platform.migration.reconcile.result import Counts, Reconciliation, Tenant
from pipeline_platform.migration.reconcile.waiting import settled

_SQL = queries("reconcile")
_SAMPLES = 5
# Keeps a hash table of some million keys in memory, as for the audit.
_WORK_MEM = "256MB"
# The one big join finds the old pipeline's rows whose arrival time differs by up to this from ours. Rows outside are
# found by key, at a few microseconds each.
_NEAR = timedelta(seconds=60)
# The number of places. Their sums must fit in a core's cache, and with some hundred differences most must be equal.
_PLACES = 4096

Params = dict[str, Any]


def reconcile(
    conn: psycopg.Connection[Any], start: datetime, end: datetime, *, store: bool = True, only_settled: bool = False
) -> Reconciliation:
    """Compare both outputs for what was accepted in [start, end) of received_at, and store what differs.

    conn: in autocommit mode, outside a transaction, with a statement time-out of at least some minutes. store: replace
    the stored result of the same window. only_settled: NotNowError if the numbers may still change.
    """
    began = time.monotonic()
    with _alone(conn, start, end):
        # Before the snapshot: whatever the window no longer waits for is then in the snapshot.
        state = settled(conn, start, end)
        if only_settled:
            state.require()
        store_identities(conn, start)
        with conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            params = _prepare(conn, start, end)
            _compare(conn, params)
            tenants, coverage = _numbers(conn, params)
            found = Reconciliation(
                start=start,
                end=end,
                waits_for=state.waits_for,
                coverage=coverage,
                tenants=tenants,
                fields=dict(conn.execute(_SQL["field_counts"]).fetchall()),
                stages=dict(conn.execute(_SQL["stages"]).fetchall()),
                samples=_samples(conn),
                seconds=time.monotonic() - began,
            )
            if store:
                _store(conn, params, found)
    return found


def default_window(conn: psycopg.Connection[Any]) -> tuple[datetime, datetime]:
    """From the first mirrored batch that is kept until now; the last hour if nothing was mirrored."""
    row = conn.execute(_SQL["default_window"]).fetchone()
    assert row
    first, now = row
    return first or now - timedelta(hours=1), now


@contextmanager
def _alone(conn: psycopg.Connection[Any], start: datetime, end: datetime) -> Generator[None]:
    """Lock the window: two reconciliations of the same window would replace the same rows."""
    key = f"reconcile {start.timestamp()} {end.timestamp()}"
    conn.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (key,))
    try:
        yield
    finally:
        # A lost connection has already released the lock.
        if not conn.closed:
            conn.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (key,))


def _prepare(conn: psycopg.Connection[Any], start: datetime, end: datetime) -> Params:
    conn.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
    row = conn.execute(_SQL["target"]).fetchone()
    assert row, "the baseline makes the row"
    compared, _, epochs, is_kept, tenants = row
    # Bits of the hash of an identity: a tenant has 2^bits places.
    bits = max(0, (_PLACES // max(tenants, 1)).bit_length() - 1)
    near = {"from": start - _NEAR, "until": end + _NEAR}
    return {
        "start": start, "end": end, "compared": compared, "epochs": epochs, "is_kept": is_kept, "bits": bits, **near,
    }  # fmt: skip


def _compare(conn: psycopg.Connection[Any], params: Params) -> None:
    """Fill the temporary tables up to `verdicts`; scan only where differences are possible.

    Adds the places that were compared to params.
    """
    for name in ("platform_sums", "legacy_sums"):
        _run(conn, name, params)
    params["unlike"] = _places(conn, "unlike")
    params["uneven"] = []
    if conn.execute(_SQL["is_even"], params).fetchone() != (True,):
        _run(conn, "accepted_sums", params)
        params["uneven"] = _places(conn, "uneven")
    # The planner takes every row of the big join for a difference, and would not use parallel workers.
    conn.execute("SELECT set_config('parallel_tuple_cost', '0', true)")
    for name in ("differing", "undelivered", "unknown"):
        _run(conn, name, params)
    conn.execute("ANALYZE differing")
    conn.execute("ANALYZE unknown")
    if _unexplained(conn):
        _run(conn, "elsewhere", params)
    # While the first generation exists, the identity keys of all delivered events exist.
    if _unexplained(conn) and conn.execute(_SQL["oldest_generation"]).fetchone() != (1,):
        _run(conn, "elsewhere_before", params)
    if _unexplained(conn):
        _run(conn, "fates", params)
    _run(conn, "late", params)
    conn.execute("ANALYZE late")
    wider = conn.execute(_SQL["late_range"], params).fetchone()
    assert wider
    _run(conn, "both_have", params)
    conn.execute("ANALYZE both_have")
    _run(conn, "fields", params | {"from": wider[0], "until": wider[1]})
    _run(conn, "verdicts", params)


def _places(conn: psycopg.Connection[Any], name: str) -> list[int]:
    return [place for (place,) in conn.execute(_SQL[name])]


def _run(conn: psycopg.Connection[Any], name: str, params: Params) -> None:
    # CREATE TABLE … AS does not accept protocol parameters. psycopg inserts them, quoted, into the text.
    psycopg.ClientCursor(conn).execute(_SQL[name], params)


def _unexplained(conn: psycopg.Connection[Any]) -> bool:
    return conn.execute("SELECT EXISTS (SELECT FROM unknown WHERE NOT is_elsewhere)").fetchone() == (True,)


def _numbers(conn: psycopg.Connection[Any], params: Params) -> tuple[list[Tenant], dict[str, Any]]:
    """The counts of each tenant with events, and the coverage."""
    by_tenant: dict[int, dict[str, int]] = {}
    whole: dict[str, int] = {}
    for tenant_id, number, events in psycopg.ClientCursor(conn).execute(_SQL["counts"], params):
        by_tenant.setdefault(tenant_id, {})[number] = events
        whole[number] = whole.get(number, 0) + events
    names = dict(conn.execute(_SQL["tenant_names"]).fetchall())
    tenants = [
        Tenant(tenant_id, names.get(tenant_id, str(tenant_id)), Counts.of(found))
        for tenant_id, found in by_tenant.items()
    ]
    known = [tenant for tenant in tenants if tenant.counts != Counts()]
    return sorted(known, key=lambda tenant: (-tenant.counts.accepted, tenant.name)), _coverage(conn, params, whole)


def _coverage(conn: psycopg.Connection[Any], params: Params, whole: dict[str, int]) -> dict[str, Any]:
    row = psycopg.ClientCursor(conn).execute(_SQL["coverage"], params).fetchone()
    assert row
    hours_past_retention, since_last, reported_lost = row
    unknown, untimed = psycopg.ClientCursor(conn).execute(_SQL["unknown_rows"], params).fetchone() or (0, 0)
    accepted = Counts.of(whole).accepted
    waiting = {
        "in_flight": whole.get("fate_in_flight", 0),
        "in_mirror": whole.get("fate_in_mirror", 0) + whole.get("in_mirror", 0),
        "discarded": whole.get("fate_discarded", 0),
    }
    return {
        "accepted": accepted,
        "compared": accepted - sum(waiting.values()),
        **waiting,
        "dead_lettered": whole.get("fate_dead_lettered", 0),
        "undelivered": whole.get("undelivered", 0),
        "elsewhere": whole.get("elsewhere", 0),
        "unknown_rows": unknown,
        "untimed_rows": untimed,
        "hours_past_retention": hours_past_retention,
        "seconds_since_last_delivery": since_last,
        "reported_lost": reported_lost,
        "columns": params["compared"],
    }


def _samples(conn: psycopg.Connection[Any]) -> Sequence[dict[str, Any]]:
    names = ("kind", "tenant", "event_id", "stage", "fields")
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in conn.execute(_SQL["samples"], {"samples": _SAMPLES})
    ]


def _store(conn: psycopg.Connection[Any], params: Params, found: Reconciliation) -> None:
    window = {"start": params["start"], "end": params["end"]}
    conn.execute(_SQL["forget"], window | {"is_settled": found.is_settled})
    if found.is_settled:
        conn.execute(_SQL["supersede"], window)
    conn.execute(_SQL["store_differences"], window)
    rows = [{"tenant_id": tenant.tenant_id, **asdict(tenant.counts)} for tenant in found.tenants]
    columns = ("tenant_id", *Counts.__dataclass_fields__)
    conn.execute(_SQL["store_result"], window | {column: [row[column] for row in rows] for column in columns})
    state = {"is_settled": found.is_settled, "seconds": found.seconds, "coverage": Jsonb(dict(found.coverage))}
    conn.execute(_SQL["store_window"], window | state)
