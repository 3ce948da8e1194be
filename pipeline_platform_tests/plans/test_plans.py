"""What the hot statements cost must not grow with what is stored: their plans, once made and remade for each call."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect, in_schema, queries
from pipeline_platform.queue.batches import EncodedBatch
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING

Conn = psycopg.Connection[Any]
Node = dict[str, Any]

_PLANTED = """
    INSERT INTO control.tenants (name) SELECT 'tenant ' || n FROM generate_series(1, 50) AS n;
    SELECT queue.open_hour(date_trunc('hour', now(), 'UTC') - n * interval '1 hour') FROM generate_series(0, 5) AS n;
    INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types, lengths,
                               codec, payload)
    SELECT n, date_trunc('hour', now(), 'UTC') - (n % 6) * interval '1 hour', 'live', 1, ARRAY[1],
           ARRAY[gen_random_uuid()], ARRAY[now()], ARRAY['t'::"char"], ARRAY[2], 'plain', '{}'
    FROM generate_series(1, 12000) AS n;
    INSERT INTO queue.work (lane, batch_id, received_at, end_event)
    SELECT lane, batch_id, received_at, 1 FROM queue.batches;
    SELECT analytics.rotate_keys('0', '72 hours');
    SELECT analytics.rotate_keys('0', '72 hours');
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT 1 + n % 3, 1 + n % 50, gen_random_uuid(), now() FROM generate_series(1, 90000) AS n;
    INSERT INTO control.traits (tenant_id, kind, subject_id, name, value, as_of, event_id)
    SELECT 1 + n % 50, 'user', 'user-' || n, 'plan', '1', now(), gen_random_uuid() FROM generate_series(1, 20000) AS n;
    INSERT INTO queue.dead_letters (tenant_id, event_id, type, lane, batch_id, event_index, batch_received_at,
        received_at, payload, failed_in, error_class, error, fingerprint, state, attempts)
    SELECT 1, gen_random_uuid(), 't', 'live', n, 0, now(), now(), '', 'load', 'E', 'e', 'f', 'exhausted', 5
    FROM generate_series(1, 5000) AS n;
    INSERT INTO replay.replays (window_start, window_end, planned_events, actor, reason, state)
    SELECT now() - interval '1 hour', now(), 1, 'a', 'r', state::replay.state
    FROM unnest(ARRAY['committed', 'diffing']) AS state;
    INSERT INTO replay.chunks (replay_id, chunk, hour, is_sweep, first_batch, last_batch, events, is_done)
    SELECT replay_id, n, date_trunc('hour', now(), 'UTC'), false, n, n, 1, state <> 'diffing' OR n < 15000
    FROM replay.replays, generate_series(1, 20000) AS n;
"""


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
def worker(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Conn]:
    """A worker's connection to a database with something in it."""
    with connect(settings.database_url, "plans", more=PLANNING) as conn:
        conn.execute(_PLANTED)
        conn.execute("VACUUM ANALYZE")
        conn.execute(f"SET plan_cache_mode = {request.param}")  # pyright: ignore
        yield conn


_TINY = """
    INSERT INTO control.tenants (name) VALUES ('a');
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT max(generation), 1, gen_random_uuid(), now() FROM analytics.key_generations;
    INSERT INTO control.traits (tenant_id, kind, subject_id, name, value, as_of, event_id)
    VALUES (1, 'user', 'a', 'plan', '1', now(), gen_random_uuid());
"""


@pytest.fixture
def new_worker(settings: Settings) -> Iterator[Conn]:
    """A worker's connection to a new installation whose tables were analyzed while they were tiny."""
    with connect(settings.database_url, "plans", more=PLANNING) as conn:
        conn.execute(_TINY)
        conn.execute("VACUUM ANALYZE")
        yield conn


def plan_of(conn: Conn, room: str, name: str, values: dict[str, str] | None = None) -> list[Node]:
    """Every node of a named query's plan, its parameters NULL where no SQL value is given."""
    text = queries(room)[name]
    text = in_schema(text, "analytics") if "{schema}" in text else text
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text))) or ["positional"] * text.count("%s")
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text).replace("%s", "$1")
    conn.execute(f"PREPARE looked_at AS {numbered}")  # pyright: ignore
    given = ", ".join((values or {}).get(each, "NULL") for each in names)
    row = conn.execute(f"EXPLAIN (FORMAT JSON) EXECUTE looked_at{f'({given})' if names else ''}").fetchone()  # pyright: ignore
    assert row
    return list(_nodes(row[0][0]["Plan"]))


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for part in node.get("Plans", []):
        yield from _nodes(part)


def assert_never_read_whole(plan: list[Node], *tables: str) -> None:
    """Each of the tables (or its partitions) is read, and only through an index."""
    for table in tables:
        scans = [
            node
            for node in plan
            if re.fullmatch(rf"{table}(_\d+)*", node.get("Relation Name", "")) and "Scan" in node["Node Type"]
        ]
        assert scans, f"{table} is not read at all"
        whole = [node["Node Type"] for node in scans if "Index" not in node["Node Type"]]
        assert not whole, f"{table} is read by {whole}"


def test_a_claim_reads_the_queue_by_its_indexes(worker: Conn) -> None:
    asked = {
        "lane": "'live'",
        "low_water": "100",
        "limit": "20",
        "events_max": "4000",
        "waited_s": "0.01",
        "bytes_max": "1000000",
    }
    plan = plan_of(worker, "queue", "claim", asked)
    assert_never_read_whole(plan, "work", "batches")


def test_a_suspect_is_found_by_its_own_index(worker: Conn) -> None:
    plan = plan_of(worker, "queue", "claim_suspect")
    assert "suspect_work" in [node.get("Index Name") for node in plan]
    assert_never_read_whole(plan, "batches")


def test_a_drain_reads_each_batch_by_its_index(worker: Conn) -> None:
    plan = plan_of(worker, "queue", "claim_hour", {"hour": "now()", "limit": "20", "bytes_max": "1000000"})
    assert_never_read_whole(plan, "batches")


def test_the_mirror_and_an_erasure_read_each_batch_by_its_index(worker: Conn) -> None:
    taken = {"low_water": "1", "batches": "20", "events": "4000", "give_up_s": "60"}
    assert_never_read_whole(plan_of(worker, "mirror", "take", taken), "batches")
    worker.execute("DEALLOCATE looked_at")
    places = {"batch_ids": "ARRAY[1, 2]", "received_ats": "ARRAY[now(), now()]"}
    assert_never_read_whole(plan_of(worker, "erasure", "batches", places), "batches")


def test_an_encoded_batch_has_the_columns_of_the_view_in_their_order(conn: Conn) -> None:
    described = conn.execute("SELECT * FROM queue.encoded_batches LIMIT 0").description
    assert described and tuple(column.name for column in described) == EncodedBatch._fields


def test_a_load_probes_the_keys_by_index_and_joins_nothing_by_nested_loops_over_two_inputs(worker: Conn) -> None:
    typed = {
        "tenant_id": "ARRAY[1, 2]",
        "event_id": "ARRAY[gen_random_uuid(), gen_random_uuid()]",
        "is_first": "ARRAY[true, true]",
        "is_measured": "ARRAY[true, true]",
        "redelivery": "false",
        "adds_enriched": "true",
    }
    plan = plan_of(worker, "worker", "load", typed)
    assert_never_read_whole(plan, "keys")
    for join in (node for node in plan if node["Node Type"] == "Nested Loop"):
        read = {part.get("CTE Name") for part in _nodes(join)}
        assert not {"input", "fresh"} <= read, "a load of n events would cost n² comparisons"


def test_look_ups_of_traits_read_only_what_is_asked_for(worker: Conn) -> None:
    asked = {
        "kind": "ARRAY['user', 'tenant']",
        "tenant_id": "ARRAY[1, 2]",
        "subject_id": "ARRAY['user-50', '']",
    }
    assert_never_read_whole(plan_of(worker, "lookups", "known", asked), "traits")


def test_a_plan_from_when_tables_were_tiny_stays_right_while_they_grow(new_worker: Conn) -> None:
    assert_never_read_whole(plan_of(new_worker, "worker", "load"), "keys")
    new_worker.execute("DEALLOCATE ALL")
    assert_never_read_whole(plan_of(new_worker, "lookups", "known"), "traits")


def test_due_dead_letters_are_found_by_their_index(worker: Conn) -> None:
    plan = plan_of(worker, "worker", "any_due_dead_letter")
    assert_never_read_whole(plan, "dead_letters")


@pytest.mark.parametrize("name", ["take", "hold", "chunk_done", "finish"])
def test_a_chunk_of_a_replay_costs_the_same_however_many_there_are(worker: Conn, name: str) -> None:
    nodes = plan_of(worker, "replay_chunk", name, {"replay_id": "2", "chunk": "15000", "state": "'diffing'"})
    used = [node for node in nodes if node.get("Relation Name") == "chunks" and "Scan" in node["Node Type"]]
    assert used and {node["Node Type"] for node in used} <= {"Index Scan", "Index Only Scan"}, used
    assert not [node for node in nodes if node["Node Type"] == "Sort" and "chunk" in str(node.get("Sort Key"))]


def test_the_console_samples_latencies_by_index(worker: Conn) -> None:
    for schema in ("analytics", "shadow"):
        worker.execute(
            f"INSERT INTO {schema}.events"
            " (tenant_id, event_id, message_id, type, occurred_at, received_at, delivered_at, batch_id)"
            " SELECT 1 + n % 50, gen_random_uuid(), 'm', 'track', now(), at, now(), 1"
            " FROM generate_series(1, 20000) AS n, LATERAL (SELECT now() - n * interval '100 ms' AS at) AS ago"
            " WHERE at >= date_trunc('day', now(), 'UTC')"
        )  # pyright: ignore
    worker.execute("ANALYZE")
    sampled = ", ".join(str(batch_id) for batch_id in range(10_800, 12_000, 4))
    plan = plan_of(worker, "console", "latency", {"batch_ids": f"ARRAY[{sampled}]"})
    assert_never_read_whole(plan, "batches", "events")
    assert [node["Parent Relationship"] for node in plan if node.get("Relation Name") == "work"] == ["Outer"]
    worker.execute("DEALLOCATE looked_at")
    assert_never_read_whole(plan_of(worker, "console", "oldest"), "batches")
