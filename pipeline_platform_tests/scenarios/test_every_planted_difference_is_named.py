"""Promise: among many equal events every difference is found and named, and nothing else is."""

import random
from typing import Any

import psycopg

from pipeline_platform.migration.reconcile import Reconciliation, reconcile
from pipeline_platform_tests.support.migration import open_epoch
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]

_ROWS = 100_000
_EACH = 7
_START, _END = "2026-10-05T10:00:00Z", "2026-10-05T11:00:00Z"


def _fill(conn: Conn, tenants: list[int]) -> None:
    """An hour of events of one shadow epoch, delivered equally by both pipelines."""
    conn.execute("SELECT queue.open_hour(%s::timestamptz)", (_START,))
    epoch = open_epoch(conn, "shadow")
    conn.execute(
        "INSERT INTO shadow.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, received_at,"
        " delivered_at, properties, context, batch_id, epoch)"
        " SELECT (%(tenants)s::integer[])[1 + n %% cardinality(%(tenants)s::integer[])], md5(n::text)::uuid, n::text,"
        "  'track', 'Clicked', 'u' || n %% 100, at, at, at + interval '5 ms',"
        "  jsonb_build_object('n', n, 'price', n %% 7, 'path', '/p/' || n %% 50), '{\"ip\": \"10.0.0.1\"}',"
        "  1 + n / 1000, %(epoch)s"
        " FROM (SELECT n, %(start)s::timestamptz + n * interval '30 ms' AS at"
        "       FROM generate_series(0, %(rows)s - 1) AS n) AS made",
        {"tenants": tenants, "epoch": epoch, "start": _START, "rows": _ROWS},
    )
    conn.execute("INSERT INTO analytics.keys SELECT 1, tenant_id, event_id, received_at FROM shadow.events")
    conn.execute(
        "INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types,"
        " lengths, codec, payload, epoch, received_ats)"
        " SELECT batch_id, min(received_at), 'live', count(*), array_agg(tenant_id ORDER BY received_at),"
        "  array_agg(event_id ORDER BY received_at), array_agg(NULL::timestamptz),"
        "  array_agg('t'::\"char\"), array_agg(0), 'plain', '', min(epoch), array_agg(received_at ORDER BY received_at)"
        " FROM shadow.events GROUP BY batch_id"
    )
    conn.execute(
        "INSERT INTO legacy.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, arrived_at,"
        " delivered_at, properties, context)"
        " SELECT tenant_id, event_id, message_id, type, name, user_id, occurred_at, received_at + interval '20 ms',"
        "  received_at + interval '90 ms', properties, context FROM shadow.events"
    )
    conn.execute("UPDATE control.legacy_target SET settle_s = 0")
    conn.execute("ANALYZE")


def _compare(conn: Conn) -> Reconciliation:
    row = conn.execute("SELECT %s::timestamptz, %s::timestamptz", (_START, _END)).fetchone()
    assert row
    return reconcile(conn, *row)


def _kinds(conn: Conn) -> dict[str, set[str]]:
    """The planted ids by what they were found to be."""
    found: dict[str, set[str]] = {}
    for kind, event_id in conn.execute("SELECT kind, event_id::text FROM reconcile.differences"):
        found.setdefault(kind, set()).add(event_id)
    return found


def test_every_kind_of_difference(conn: Conn, seed: int) -> None:
    tenants = [tenant.tenant_id for tenant in add_tenants(conn, "a", "b", "c")]
    _fill(conn, tenants)
    equal = _compare(conn)
    assert equal.totals.matched == _ROWS and not equal.has_drift and equal.has_parity, f"seed {seed}"
    rng = random.Random(seed)
    chosen = rng.sample(range(_ROWS), 6 * _EACH)
    ids = [conn.execute("SELECT md5(%s)::uuid::text", (str(number),)).fetchone() for number in chosen]
    sets = [[row[0] for row in ids[at : at + _EACH] if row] for at in range(0, len(ids), _EACH)]
    missing, valued, typed, nested, late, doubled = sets
    every = "event_id = ANY(%s::uuid[])"
    conn.execute(f"DELETE FROM legacy.events WHERE {every}", (missing,))
    conn.execute(f"UPDATE legacy.events SET name = 'Clicked!' WHERE {every}", (valued,))
    conn.execute(
        f"UPDATE legacy.events SET properties = jsonb_set(properties, '{{price}}', to_jsonb(properties->>'price'))"
        f" WHERE {every}",
        (typed,),
    )
    conn.execute(f'UPDATE legacy.events SET context = context || \'{{"ip": "10.0.0.2"}}\' WHERE {every}', (nested,))
    # An hour late by the old pipeline's clock, and stored twice: neither is a difference.
    conn.execute(f"UPDATE legacy.events SET arrived_at = arrived_at + interval '1 hour' WHERE {every}", (late,))
    conn.execute(f"INSERT INTO legacy.events SELECT * FROM legacy.events WHERE {every}", (doubled,))
    extra = [f"00000000-0000-4000-8000-{number:012d}" for number in range(_EACH)]
    conn.execute(
        "INSERT INTO legacy.events (tenant_id, event_id, message_id, type, occurred_at, arrived_at)"
        " SELECT %s, id, id::text, 'track', %s::timestamptz, %s::timestamptz FROM unnest(%s::uuid[]) AS id",
        (tenants[0], _START, _START, extra),
    )
    found = _compare(conn)
    kinds = _kinds(conn)
    assert kinds["dropped"] == kinds["missing"] == set(missing), f"seed {seed}"
    assert kinds["mismatched"] == {*valued, *typed, *nested}, f"seed {seed}"
    assert kinds["extra"] == set(extra), f"seed {seed}"
    assert found.fields == {"name": _EACH, "properties.price": _EACH, "context.ip": _EACH}
    totals = found.totals
    assert (totals.matched, totals.duplicates) == (_ROWS - 4 * _EACH, _EACH)
    assert found.has_drift and not found.has_parity
    shapes = conn.execute(
        "SELECT DISTINCT samples::text FROM reconcile.differences WHERE fields ? 'properties.price'"
    ).fetchall()
    assert len(shapes) == 1 and "number" in shapes[0][0] and "string" in shapes[0][0] and "Clicked" not in shapes[0][0]
