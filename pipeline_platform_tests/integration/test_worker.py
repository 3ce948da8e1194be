"""The engine on real servers: what it loads, counts, removes and buries."""

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect
from pipeline_platform.event.types import AcceptedEvent, EventType, Lane, TenantId
from pipeline_platform.lookups import LookupKey, Lookups
from pipeline_platform.queue.batches import claim, is_full
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine, Processed
from pipeline_platform.worker.retry_lane import redeliver
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenant

Conn = psycopg.Connection[Any]


def step(engine: Engine) -> Processed:
    return engine.step(lambda conn: claim(conn, Lane.LIVE, 100, 0))


def totals(conn: Conn) -> dict[str, int]:
    names = ("accepted", "claimed", "enriched", "delivered", "duplicate", "dead_lettered", "discarded", "in_flight")
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in names)
    row = conn.execute(f"SELECT {sums} FROM account.funnel").fetchone()  # pyright: ignore
    assert row
    found = dict(zip(names, row, strict=True))
    assert found["accepted"] == sum(
        found[name] for name in ("delivered", "duplicate", "dead_lettered", "discarded", "in_flight")
    )
    return found


def test_delivers_a_row_with_all_its_columns(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    properties = '{"n": 123456789012345678901234567890, "x": 1.50}'
    payload = f'{{"messageId":"m-1","event":"Bought","userId":42,"properties":{properties}}}'.encode()
    envelope = b'{"context":{"library":{"name":"x"},"ip":"10.0.0.1"},"sentAt":"2026-01-02T00:00:10Z"}'
    accept(
        conn,
        event(tenant, "m-1", client_at=datetime(2026, 1, 2, tzinfo=UTC), payload=payload, envelope=envelope),
    )
    assert step(engine) == Processed(claimed=1, delivered=1)
    row = conn.execute(
        "SELECT message_id, type, name, user_id, tenant_name, tenant_plan, properties::text, context->>'ip',"
        " received_at - occurred_at FROM analytics.events"
    ).fetchone()
    assert row
    assert row[:6] == ("m-1", "track", "Bought", "42", "acme", "pro")
    assert json.loads(row[6])["n"] == 123456789012345678901234567890
    assert row[7] == "10.0.0.1"
    assert row[8].total_seconds() == 10
    assert totals(conn)["delivered"] == 1
    assert conn.execute("SELECT count(*) FROM queue.work").fetchone() == (0,)


def test_the_same_event_counts_once(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    accept(conn, event(tenant, "a"), event(tenant, "a"), event(tenant, "b"))
    accept(conn, event(tenant, "a", timestamp="2020-01-01"))
    assert step(engine) == Processed(claimed=4, delivered=2, duplicate=2)
    accept(conn, event(tenant, "b"))
    assert step(engine) == Processed(claimed=1, duplicate=1)
    assert totals(conn) | {"delivered": 2, "duplicate": 3, "in_flight": 0} == totals(conn)


def test_a_closed_generation_of_keys_still_removes_duplicates(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    accept(conn, event(tenant, "a"))
    step(engine)
    assert conn.execute("SELECT analytics.rotate_keys('0', '72 hours')").fetchone() == (True,)
    accept(conn, event(tenant, "a"), event(tenant, "b"))
    assert step(engine) == Processed(claimed=2, delivered=1, duplicate=1)


def test_bad_rows_become_dead_letters_and_neighbours_commit(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    good = [event(tenant, f"g{number}") for number in range(98)]
    nul = event(tenant, "nul", properties={"a": "\0"})
    broken = event(tenant, payload=b'{"messageId":')
    accept(conn, *good[:50], nul, broken, *good[50:])
    assert step(engine) == Processed(claimed=100, delivered=98, dead_lettered=2)
    found = conn.execute("SELECT failed_in, state, attempts FROM queue.dead_letters ORDER BY failed_in").fetchall()
    assert found == [("load", "waiting", 1), ("transform", "waiting", 1)]
    assert totals(conn) | {"enriched": 99, "dead_lettered": 2, "in_flight": 0} == totals(conn)


def test_dead_letters_are_exhausted_with_one_alert(
    conn: Conn, engine: Engine, settings: Settings, lookups: Lookups, tenant: TenantId
) -> None:
    accept(conn, *[event(tenant, properties={"a": "\0"}) for _ in range(3)])
    step(engine)
    for _ in range(settings.attempts_max - 1):
        conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now() WHERE state = 'waiting'")
        assert redeliver(settings, conn, lookups) == Processed(claimed=3)
    assert conn.execute("SELECT DISTINCT state, attempts FROM queue.dead_letters").fetchall() == [("exhausted", 5)]
    assert conn.execute("SELECT occurrences FROM control.alerts").fetchall() == [(3,)]
    assert totals(conn)["dead_lettered"] == 3


def test_a_mended_dead_letter_is_delivered(
    conn: Conn, engine: Engine, settings: Settings, lookups: Lookups, tenant: TenantId
) -> None:
    accept(conn, event(tenant, "a", payload=b"{"))
    step(engine)
    mended = b'{"messageId":"a","event":"x"}'
    conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now(), payload = %s", (mended,))
    assert redeliver(settings, conn, lookups) == Processed(claimed=1, delivered=1)
    assert totals(conn) | {"delivered": 1, "enriched": 1, "dead_lettered": 0} == totals(conn)


def test_a_dead_letter_counts_as_enriched_once_wherever_it_fails_later(
    conn: Conn, engine: Engine, settings: Settings, lookups: Lookups, tenant: TenantId
) -> None:
    accept(conn, event(tenant, "a", properties={"a": "\0"}))
    step(engine)
    for payload in (b"{", b'{"messageId":"a","event":"x"}'):
        conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now(), payload = %s", (payload,))
        redeliver(settings, conn, lookups)
    assert totals(conn) | {"delivered": 1, "enriched": 1, "dead_lettered": 0} == totals(conn)


def test_traits_are_kept_whatever_the_order_and_seen_by_later_events(
    conn: Conn, engine: Engine, tenant: TenantId
) -> None:
    newer = event(tenant, "i2", EventType.IDENTIFY, traits={"plan": "new", "b": 1})
    older = event(
        tenant, "i1", EventType.IDENTIFY, client_at=datetime(2026, 1, 1, tzinfo=UTC), traits={"plan": "old", "a": 1}
    )
    accept(conn, event(tenant, "t0"))
    step(engine)
    accept(conn, newer)
    step(engine)
    accept(conn, older)
    step(engine)
    accept(conn, event(tenant, "t1"))
    step(engine)
    found = conn.execute("SELECT user_traits FROM analytics.events WHERE message_id = 't1'").fetchone()
    assert found == ({"plan": "new", "a": 1, "b": 1},)


def test_without_redis_the_rows_are_the_same(conn: Conn, settings: Settings, tenant: TenantId) -> None:
    nowhere = Lookups(settings, "redis://127.0.0.1:1/0")
    with connect(settings.database_url, "test worker") as own:
        accept(conn, event(tenant, "a"))
        assert step(Engine(settings, own, nowhere)) == Processed(claimed=1, delivered=1)
    assert conn.execute("SELECT tenant_name FROM analytics.events").fetchone() == ("acme",)
    nowhere.close()


def test_a_claim_ends_after_enough_events_whatever_the_batches_are(
    conn: Conn, tenant: TenantId, database_url: str
) -> None:
    for number in range(5):
        accept(conn, *(event(tenant, f"{number}-{place}") for place in range(10)))
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        assert [work.events for work in claim(first, Lane.LIVE, 100, 0, events_max=11)] == [10, 10]
        # The rest is free again when the first is done, and at once where it was not asked for.
        assert claim(second, Lane.LIVE, 100, 0, events_max=1) == []
        first.rollback()
        assert [work.events for work in claim(second, Lane.LIVE, 100, 0, events_max=1)] == [10]
        assert len(claim(first, Lane.LIVE, 2, 0)) == 0
        second.rollback()
        assert len(claim(first, Lane.LIVE, 2, 0)) == 2


def test_a_claim_of_what_has_waited_leaves_what_is_new(conn: Conn, tenant: TenantId, database_url: str) -> None:
    accept(conn, event(tenant, "old"))
    with psycopg.connect(database_url) as worker:
        assert claim(worker, Lane.LIVE, 100, 0, waited_s=60) == []
        conn.execute("SELECT pg_sleep(1)")
        accept(conn, event(tenant, "new-1"), event(tenant, "new-2"))
        age_s = conn.execute(
            "SELECT extract(epoch FROM clock_timestamp() - max(received_at)) FROM queue.work"
        ).fetchone()
        assert age_s
        assert [work.events for work in claim(worker, Lane.LIVE, 100, 0, waited_s=float(age_s[0]) + 0.9)] == [1]
        assert [work.events for work in claim(worker, Lane.LIVE, 100, 0)] == [1, 2]


def test_what_nobody_knows_of_is_asked_for_once(conn: Conn, tenant: TenantId, lookups: Lookups) -> None:
    keys = [
        LookupKey("tenant", tenant),
        LookupKey("user", tenant, "nobody"),
        LookupKey("group", tenant, "none"),
        LookupKey("tenant", 1 << 30),
    ]
    known = lookups.get(conn, keys)
    assert [known[key] for key in keys[1:]] == [b"", b"", b""]
    assert json.loads(known[keys[0]])["name"] == "acme"
    assert lookups.get(conn, keys) == known
    assert (lookups.hits, lookups.misses) == (4, 4)


def test_bad_data_in_the_enrichment_costs_no_neighbour(
    conn: Conn, engine: Engine, settings: Settings, lookups: Lookups, tenant: TenantId
) -> None:
    conn.execute("INSERT INTO control.traits VALUES (%s, 'user', 'bad', 'a', '0', now(), gen_random_uuid())", (tenant,))
    conn.execute("ALTER TABLE control.traits RENAME TO own_traits")
    conn.execute(
        "CREATE VIEW control.traits AS SELECT tenant_id, kind, subject_id, name, to_jsonb(1 / value::integer) AS value,"
        " as_of, event_id FROM control.own_traits"
    )
    users = ["good", "bad", "fine", "bad", "well"]
    accept(conn, *[event(tenant, f"m{number}", userId=user) for number, user in enumerate(users)])
    accept(conn, event(tenant, "broken", payload=b"{"))
    assert step(engine) == Processed(claimed=6, delivered=3, dead_lettered=3)
    letters = "SELECT failed_in, error_class, attempts FROM queue.dead_letters ORDER BY dead_letter_id"
    found = sorted(conn.execute(letters).fetchall())
    assert found == [("enrich", "DivisionByZero", 1)] * 2 + [("transform", "InvalidEventError", 1)]

    mended = b'{"messageId":"broken","event":"x","userId":"good"}'
    conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now()")
    conn.execute("UPDATE queue.dead_letters SET payload = %s WHERE failed_in = 'transform'", (mended,))
    assert redeliver(settings, conn, lookups) == Processed(claimed=3, delivered=1)
    assert conn.execute(
        "SELECT count(*) FROM queue.dead_letters WHERE state = 'waiting' AND attempts = 2"
    ).fetchone() == (2,)
    conn.execute("DROP VIEW control.traits")
    conn.execute("ALTER TABLE control.own_traits RENAME TO traits")
    conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now() WHERE state = 'waiting'")
    assert redeliver(settings, conn, lookups) == Processed(claimed=2, delivered=2)
    assert totals(conn) | {"delivered": 6, "enriched": 6, "dead_lettered": 0} == totals(conn)


def _sequence(tenant: TenantId, seed: int) -> list[AcceptedEvent]:
    """Events of two users and a group who become known on the way; some cannot be loaded."""
    chance = random.Random(seed)
    made: list[AcceptedEvent] = []
    for number in range(16):
        kind = chance.choice([EventType.IDENTIFY, EventType.GROUP, EventType.TRACK, EventType.TRACK])
        traits = {chance.choice("abc"): number} if kind is not EventType.TRACK else {}
        spoils = {"properties": {"x": "\0"}} if seed % 2 and chance.random() < 0.2 else {}
        at = datetime(2026, 1, chance.randint(1, 9), tzinfo=UTC)
        made.append(
            event(
                tenant, f"m{number:02}", kind, client_at=at, userId=chance.choice(["u1", "u2"]), event="e",
                groupId="g", context={"groupId": "g"}, traits=traits, **spoils,
            )
        )  # fmt: skip
    return made


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_is_enriched_as_its_events_one_by_one(conn: Conn, engine: Engine, tenant: TenantId, seed: int) -> None:
    other = add_tenant(conn, "other").tenant_id
    accept(conn, *_sequence(tenant, seed))
    together = step(engine)
    apart = Processed()
    for one in _sequence(other, seed):
        accept(conn, one)
        apart += step(engine)
    assert together == apart
    enriched = "SELECT message_id, user_traits, group_traits FROM analytics.events WHERE tenant_id = %s ORDER BY 1"
    rows = conn.execute(enriched, (tenant,)).fetchall()
    assert rows == conn.execute(enriched, (other,)).fetchall()
    assert any(user for _, user, _ in rows) and any(group for _, _, group in rows)
    kept = "SELECT kind, subject_id, name, value FROM control.traits WHERE tenant_id = %s ORDER BY 1, 2, 3"
    assert conn.execute(kept, (tenant,)).fetchall() == conn.execute(kept, (other,)).fetchall()


def test_a_claim_ends_after_enough_bytes(conn: Conn, tenant: TenantId, database_url: str) -> None:
    for number in range(3):
        accept(conn, event(tenant, f"large-{number}", properties={"x": "x" * 100_000}))
    # Small events, each with what the request said around it.
    around = [replace(event(tenant, f"a{n}"), envelope=b'{"context":{"x":"%s"}}' % (b"x" * 10_000)) for n in range(10)]
    accept(conn, *around)
    accept(conn, event(tenant, "last"))
    with psycopg.connect(database_url) as worker:
        works = claim(worker, Lane.LIVE, 100, 0, bytes_max=150_000)
        assert [work.events for work in works] == [1, 1]
        assert 200_000 < sum(work.bytes for work in works) < 201_000
        worker.rollback()
        assert [work.events for work in claim(worker, Lane.LIVE, 100, 0, bytes_max=1)] == [1]
        worker.rollback()
        works = claim(worker, Lane.LIVE, 100, 0, bytes_max=400_000)
        assert [work.events for work in works] == [1, 1, 1, 10]
        assert works[3].bytes > 100_000
        assert not is_full(works)
        worker.rollback()
        assert len(claim(worker, Lane.LIVE, 100, 0)) == 5


def test_traits_of_too_long_a_name_stay_in_their_own_row(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=2_500))
    accept(
        conn, event(tenant, "i", EventType.IDENTIFY, userId="u" * 500, traits={}, context={"traits": {long: 1, "a": 2}})
    )
    assert step(engine) == Processed(claimed=1, delivered=1)
    assert conn.execute("SELECT name FROM control.traits").fetchall() == [("a",)]
    assert conn.execute("SELECT traits -> %s FROM analytics.events", (long,)).fetchone() == (1,)


def test_what_has_no_column_reaches_analytics(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    accept(conn, event(tenant, "p", EventType.PAGE, category="Docs", timestamp="soon"), event(tenant, "t"))
    step(engine)
    found = conn.execute("SELECT message_id, rest FROM analytics.events ORDER BY 1").fetchall()
    assert found == [("p", {"category": "Docs", "timestamp": "soon", "event": "Clicked"}), ("t", None)]
