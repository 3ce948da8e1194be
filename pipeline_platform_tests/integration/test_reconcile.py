"""Reconciliation: what is judged, what is not yet, and which window an event belongs to."""

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.errors import NotNowError
from pipeline_platform.migration.reconcile import Counts, Reconciliation, reconcile, settled
from pipeline_platform.migration.recovery.dropped import Window
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


def _now(conn: Conn) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return row[0]


def _compare(conn: Conn, start: datetime | None = None, end: datetime | None = None) -> Reconciliation:
    now = _now(conn)
    return reconcile(conn, start or now - timedelta(hours=1), end or now)


def _made(events: int = 10) -> list[uuid.UUID]:
    return sorted(uuid.uuid4() for _ in range(events))


def _stored(conn: Conn) -> set[tuple[str, uuid.UUID]]:
    return set(conn.execute("SELECT kind, event_id FROM reconcile.differences").fetchall())


def _legacy_drops(conn: Conn, ids: Iterable[uuid.UUID]) -> None:
    conn.execute("DELETE FROM legacy.events WHERE event_id = ANY(%s)", (list(ids),))


def _arrives(conn: Conn, ids: Sequence[uuid.UUID], at: datetime) -> None:
    """By the old pipeline's clock."""
    conn.execute("UPDATE legacy.events SET arrived_at = %s WHERE event_id = ANY(%s)", (at, list(ids)))


@pytest.fixture
def acme(conn: Conn) -> Tenant:
    open_epoch(conn, "shadow")
    return add_tenants(conn, "acme")[0]


@pytest.fixture
def ids(conn: Conn, settings: Settings, acme: Tenant) -> list[uuid.UUID]:
    """Ten events that both pipelines delivered, settled."""
    made = _made()
    accept_ids(conn, acme.tenant_id, made)
    drain(settings)
    legacy_has(conn)
    settle(conn)
    return made


def test_equal_outputs_have_parity(conn: Conn, ids: list[uuid.UUID]) -> None:
    found = _compare(conn)
    assert found.totals == Counts(accepted=10, platform=10, legacy=10, matched=10)
    assert (found.has_drift, found.has_parity, found.is_settled) == (False, True, True)
    assert found.coverage["compared"] == 10
    assert [tenant.name for tenant in found.tenants] == ["acme"]


def test_an_empty_window_has_no_drift(conn: Conn) -> None:
    settle(conn)
    found = _compare(conn)
    assert (found.totals, found.tenants, found.samples) == (Counts(), [], [])
    assert not found.has_drift and found.has_parity
    assert conn.execute("SELECT count(*) FROM reconcile.windows").fetchone() == (1,)


def test_one_dropped_event_is_drift_and_is_missing_until_it_is_recovered(conn: Conn, ids: list[uuid.UUID]) -> None:
    _legacy_drops(conn, ids[:2])
    conn.execute("INSERT INTO legacy.losses SELECT tenant_id, event_id, 'lookup', 'time-out' FROM shadow.events"
                 " WHERE event_id = %s", (ids[0],))  # fmt: skip
    start, end = _now(conn) - timedelta(hours=1), _now(conn)
    found = _compare(conn, start, end)
    assert found.totals == Counts(accepted=10, platform=10, legacy=8, matched=8, dropped=2, missing=2)
    assert found.stages == {"lookup": 1, "unreported": 1}
    assert found.has_drift and found.has_parity
    assert _stored(conn) == {(kind, event_id) for kind in ("dropped", "missing") for event_id in ids[:2]}
    recover(conn, Window(start, end), reason="test")
    after = _compare(conn, start, end)
    assert (after.totals.dropped, after.totals.recovered, after.totals.missing) == (2, 2, 0)
    assert not after.has_drift
    assert _stored(conn) == {("dropped", event_id) for event_id in ids[:2]}
    assert not audit(conn).differences


def test_what_neither_pipeline_delivered_is_missing(conn: Conn, ids: list[uuid.UUID]) -> None:
    """The account says delivered, its key is there, and its row is gone."""
    _legacy_drops(conn, ids[:1])
    conn.execute("DELETE FROM shadow.events WHERE event_id = %s", (ids[0],))
    found = _compare(conn)
    assert found.totals == Counts(accepted=10, platform=9, legacy=9, matched=9, missing=1)
    assert found.has_drift and not found.has_parity
    assert _stored(conn) == {("missing", ids[0])}


def test_what_is_in_flight_or_waits_for_the_mirror_is_not_judged(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    unmirrored, unworked = _made(3), _made(4)
    accept_ids(conn, acme.tenant_id, unmirrored)
    drain(settings)
    conn.execute("UPDATE queue.mirror SET sending_at = NULL")
    accept_ids(conn, acme.tenant_id, unworked)
    found = _compare(conn)
    assert not found.is_settled
    assert [waits.partition(" events ")[0] for waits in found.waits_for[:2]] == ["4", "7"]
    coverage = found.coverage
    assert (coverage["accepted"], coverage["compared"]) == (17, 10)
    assert (coverage["in_flight"], coverage["in_mirror"]) == (4, 3)
    assert not found.has_drift and not found.has_parity
    with pytest.raises(NotNowError, match="wait for the mirror"):
        reconcile(conn, _now(conn) - timedelta(hours=1), _now(conn), only_settled=True)


def test_a_window_under_way_is_not_settled(conn: Conn, ids: list[uuid.UUID]) -> None:
    now = _now(conn)
    assert settled(conn, now - timedelta(hours=1), now).is_settled
    state = settled(conn, now - timedelta(hours=1), now + timedelta(hours=1))
    assert "the window ends in" in state.waits_for[0]
    assert "settle_s" in settled(conn, now - timedelta(hours=1), now, settle_s=300).waits_for[0]


def test_who_may_still_accept_into_a_window_keeps_it_open(conn: Conn, database_url: str, ids: list[uuid.UUID]) -> None:
    with psycopg.connect(database_url) as accepting:
        accepting.execute("SELECT queue.enter_hour()")
        end = _now(conn)
        assert "1 transactions may still accept" in settled(conn, end - timedelta(hours=1), end).waits_for[0]
    assert settled(conn, end - timedelta(hours=1), end).is_settled


def test_an_old_pipeline_that_still_delivers_of_the_window_is_not_settled(conn: Conn, ids: list[uuid.UUID]) -> None:
    end = _now(conn)
    _arrives(conn, ids, end + timedelta(minutes=5))
    conn.execute("UPDATE control.legacy_target SET settle_s = 0")
    state = settled(conn, end - timedelta(hours=1), end)
    assert "delivered some of it" in state.waits_for[0]


def test_an_event_sent_again_in_a_later_window_is_compared_once(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    between = _now(conn)
    accept_ids(conn, acme.tenant_id, ids[:4])
    drain(settings)
    # The old pipeline has no idempotency: it stores them again.
    conn.execute("INSERT INTO legacy.events SELECT * FROM legacy.events WHERE event_id = ANY(%s)", (ids[:4],))
    settle(conn)
    first, second = _compare(conn, None, between), _compare(conn, between)
    assert first.totals == Counts(accepted=10, platform=10, legacy=10, matched=10, duplicates=4)
    assert (second.totals, second.coverage["elsewhere"]) == (Counts(), 4)
    assert not first.has_drift and not second.has_drift and first.has_parity and second.has_parity


@pytest.mark.parametrize("minutes", [-50, -2, 2, 50])
def test_the_old_pipelines_clock_decides_nothing(conn: Conn, ids: list[uuid.UUID], minutes: int) -> None:
    end = _now(conn)
    _arrives(conn, ids[:5], end + timedelta(minutes=minutes))
    early, here = (
        _compare(conn, end - timedelta(hours=3), end - timedelta(hours=1)),
        _compare(conn, end - timedelta(hours=1), end),
    )
    later = _compare(conn, end, end + timedelta(hours=2))
    assert here.totals == Counts(accepted=10, platform=10, legacy=10, matched=10)
    assert early.totals == later.totals == Counts()


def test_a_late_row_with_another_content_is_mismatched(conn: Conn, ids: list[uuid.UUID]) -> None:
    end = _now(conn)
    _arrives(conn, ids[:1], end + timedelta(hours=5))
    conn.execute("UPDATE legacy.events SET user_id = 'u2' WHERE event_id = %s", (ids[0],))
    found = _compare(conn, end - timedelta(hours=1), end)
    assert (found.totals.matched, found.totals.mismatched, found.fields) == (9, 1, {"user_id": 1})


def test_one_equal_row_of_several_is_enough(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("INSERT INTO legacy.events SELECT * FROM legacy.events WHERE event_id = ANY(%s)", (ids[:2],))
    conn.execute(
        "UPDATE legacy.events SET properties = '{}' WHERE ctid IN"
        " (SELECT min(ctid) FROM legacy.events GROUP BY event_id HAVING count(*) > 1)"
    )
    found = _compare(conn)
    assert found.totals == Counts(accepted=10, platform=10, legacy=10, matched=10, duplicates=2)
    assert not found.has_drift


def test_numbers_that_are_equal_are_equal_however_they_are_written(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("""UPDATE legacy.events SET properties = (properties::text::jsonb - 'n')
                    || jsonb_build_object('n', (properties ->> 'n')::numeric(9, 3))""")
    found = _compare(conn)
    assert (found.totals.matched, found.fields) == (10, {})


def test_two_values_exchanged_are_found(conn: Conn, ids: list[uuid.UUID]) -> None:
    """PostgreSQL's own hash of jsonb does not see values exchanged at 32 places' distance."""
    wide = {f"k{number:02d}": 0 for number in range(40)}
    ours, theirs = wide | {"k00": 1, "k16": 2}, wide | {"k00": 2, "k16": 1}
    conn.execute("UPDATE shadow.events SET properties = %s WHERE event_id = %s", (json.dumps(ours), ids[0]))
    conn.execute("UPDATE legacy.events SET properties = %s WHERE event_id = %s", (json.dumps(theirs), ids[0]))
    assert _compare(conn).fields == {"properties.k00": 1, "properties.k16": 1}


@pytest.mark.parametrize(
    ("column", "ours", "theirs", "fields"),
    [
        ("properties", {"a": "12"}, {"a": 12}, ["properties.a"]),
        ("properties", {"a": None}, {}, ["properties.a"]),
        ("properties", {}, None, ["properties"]),
        ("properties", {"a": 1}, [1], ["properties"]),
        ("traits", None, {"plan": "x", "seats": 3}, ["traits.plan", "traits.seats"]),
        ("context", {"page": {"path": "/"}, "ip": "1"}, {"page": {"path": "/x"}, "ip": "1"}, ["context.page"]),
        ("name", "Clicked", "", ["name"]),
        ("anonymous_id", None, "", ["anonymous_id"]),
    ],
)
def test_fields_are_named(
    conn: Conn, ids: list[uuid.UUID], column: str, ours: object, theirs: object, fields: list[str]
) -> None:
    for table, value in (("shadow.events", ours), ("legacy.events", theirs)):
        written = json.dumps(value) if isinstance(value, dict | list) else value
        conn.execute(f"UPDATE {table} SET {column} = %s WHERE event_id = %s", (written, ids[0]))
    found = _compare(conn)
    assert sorted(found.fields) == fields
    row = conn.execute("SELECT event_id, fields, samples FROM reconcile.differences").fetchall()
    assert [(event_id, named) for event_id, named, _ in row] == [(ids[0], fields)]
    assert all(set(shape) == {"platform", "legacy"} for shape in row[0][2].values())


def test_only_configured_columns_are_compared(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("UPDATE legacy.events SET name = 'Other', group_id = 'g' WHERE event_id = %s", (ids[0],))
    assert _compare(conn).fields == {"name": 1}
    conn.execute("UPDATE control.legacy_target SET compared = '{type, group_id}'")
    found = _compare(conn)
    assert (found.fields, found.coverage["columns"]) == ({"group_id": 1}, ["type", "group_id"])


def test_samples_never_show_a_value(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("UPDATE legacy.events SET user_id = 'secret-1', properties = '{\"n\": \"secret-2\"}'")
    found = _compare(conn)
    assert found.totals.mismatched == 10
    shown = json.dumps(found.to_json(), default=str)
    assert "secret" not in shown
    row = conn.execute("SELECT string_agg(samples::text, ''), min(samples #>> '{user_id,legacy,length}')"
                       " FROM reconcile.differences").fetchone()  # fmt: skip
    assert row and "secret" not in row[0] and row[1] == "8"


def _dead_letter(conn: Conn, event_id: uuid.UUID, event_index: int, state: str) -> None:
    """The event as if it had never been delivered."""
    conn.execute(
        "INSERT INTO queue.dead_letters (tenant_id, event_id, type, lane, batch_id, event_index, batch_received_at,"
        " received_at, payload, failed_in, error_class, error, fingerprint, state, attempts, resolved_at, reason)"
        " SELECT tenant_id, event_id, 't', 'live', batch_id, %(index)s, received_at, received_at, '', 'load', 'x', 'x',"
        " 'x', %(state)s, 5, CASE WHEN %(state)s = 'discarded' THEN now() END,"
        " CASE WHEN %(state)s = 'discarded' THEN 'test' END FROM shadow.events WHERE event_id = %(id)s",
        {"state": state, "id": event_id, "index": event_index},
    )
    conn.execute("DELETE FROM shadow.events WHERE event_id = %s", (event_id,))
    conn.execute("DELETE FROM analytics.keys WHERE event_id = %s", (event_id,))


def test_a_dead_letter_is_extra_where_the_old_pipeline_has_it(conn: Conn, ids: list[uuid.UUID]) -> None:
    for event_index, event_id in enumerate(ids[:2]):
        _dead_letter(conn, event_id, event_index, "exhausted")
    _legacy_drops(conn, ids[:1])
    found = _compare(conn)
    assert found.totals == Counts(accepted=10, platform=8, legacy=9, matched=8, extra=1, missing=1)
    assert found.coverage["dead_lettered"] == 2
    assert not found.has_parity
    assert conn.execute("SELECT kind, event_id, stage FROM reconcile.differences ORDER BY kind").fetchall() == [
        ("extra", ids[1], "dead_lettered"),
        ("missing", ids[0], "unreported"),
    ]


def test_what_an_operator_discarded_is_no_drift(conn: Conn, ids: list[uuid.UUID]) -> None:
    for event_index, event_id in enumerate(ids[:2]):
        _dead_letter(conn, event_id, event_index, "discarded")
    _legacy_drops(conn, ids[:1])
    found = _compare(conn)
    assert (found.totals.matched, found.coverage["discarded"], found.coverage["compared"]) == (8, 2, 8)
    assert not found.has_drift and found.has_parity


def test_after_the_turn_only_what_production_lacks_is_missing(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    open_epoch(conn, "platform_primary")
    later = _made(5)
    accept_ids(conn, acme.tenant_id, later)
    drain(settings)
    legacy_has(conn, later[:1])
    settle(conn)
    found = _compare(conn)
    assert found.totals == Counts(accepted=15, platform=15, legacy=11, matched=11, dropped=4)
    assert not found.has_drift and found.has_parity


def test_what_was_never_mirrored_is_not_compared(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    open_epoch(conn, "legacy_off")
    accept_ids(conn, acme.tenant_id, _made(5))
    drain(settings)
    assert _compare(conn).totals == Counts(accepted=10, platform=10, legacy=10, matched=10)


def test_one_identity_of_two_tenants_is_two_events(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    other = add_tenants(conn, "other")[0]
    accept_ids(conn, other.tenant_id, ids)
    drain(settings)
    settle(conn)
    found = _compare(conn)
    assert {tenant.name: tenant.counts for tenant in found.tenants} == {
        "acme": Counts(accepted=10, platform=10, legacy=10, matched=10),
        "other": Counts(accepted=10, platform=10, dropped=10, missing=10),
    }


def test_a_window_compared_again_replaces_what_was_found(conn: Conn, ids: list[uuid.UUID]) -> None:
    start, end = _now(conn) - timedelta(hours=1), _now(conn)
    _legacy_drops(conn, ids[:3])
    _compare(conn, start, end)
    legacy_has(conn, ids[:2])
    _compare(conn, start, end)
    assert _stored(conn) == {("dropped", ids[2]), ("missing", ids[2])}
    assert conn.execute("SELECT count(*), sum(dropped) FROM reconcile.results").fetchone() == (1, 1)
    reconcile(conn, start, end + timedelta(seconds=1), store=False)
    assert conn.execute("SELECT count(*) FROM reconcile.windows").fetchone() == (1,)


def test_keys_that_are_gone_are_looked_up_in_the_rows(conn: Conn, ids: list[uuid.UUID]) -> None:
    """A row that arrives after the generation of its key was dropped is late, and not extra."""
    end = _now(conn)
    _arrives(conn, ids[:1], end + timedelta(minutes=30))
    conn.execute("UPDATE queue.hours SET dropped_at = now()")
    conn.execute("SELECT analytics.rotate_keys('0 s', '0 s'), analytics.rotate_keys('0 s', '0 s')")
    assert conn.execute("SELECT count(*) FROM analytics.keys").fetchone() == (0,)
    assert _compare(conn, end, end + timedelta(hours=1)).totals == Counts()


def test_the_command_answers_and_exports(conn: Conn, settings: Settings, ids: list[uuid.UUID], tmp_path: Path) -> None:
    equal = run_command(settings, "reconcile", "--json", "--wait", "10")
    assert (equal.code, equal.answer["matched"], equal.answer["settled"], equal.answer["parity"]) == (0, 10, True, True)
    _legacy_drops(conn, ids[:2])
    conn.execute("UPDATE legacy.events SET name = 'Other' WHERE event_id = %s", (ids[2],))
    found = run_command(settings, "reconcile", "--json", "--export", str(tmp_path))
    assert found.code == 1
    assert set(found.answer) >= {
        "from", "to", "settled", "waits_for", "coverage", "accepted", "platform", "legacy", "matched", "mismatched",
        "dropped", "missing", "extra", "duplicates", "recovered", "fields", "stages", "tenants", "samples", "drift",
        "parity",
    }  # fmt: skip
    for name, rows in (("results", 1), ("differences", 5)):
        (as_csv,), (as_parquet,) = tmp_path.glob(f"{name}-*.csv"), tmp_path.glob(f"{name}-*.parquet")
        frame, same = pd.read_parquet(as_parquet), pd.read_csv(as_csv)
        assert len(frame) == len(same) == rows
        assert list(frame.columns) == list(same.columns)
    differences = pd.read_parquet(next(tmp_path.glob("differences-*.parquet")))
    assert set(zip(differences["kind"], differences["event_id"], strict=True)) == {
        (kind, str(event_id)) for kind, event_id in _stored(conn)
    }
    shown = run_command(settings, "reconcile")
    assert shown.code == 1
    assert "DRIFT" in shown.out and "unreported" in shown.out and "acme" in shown.out


def test_the_command_takes_an_hour_and_refuses_nonsense(settings: Settings, ids: list[uuid.UUID]) -> None:
    this_hour = datetime.now(UTC).strftime("%Y-%m-%d-%H:00")
    found = run_command(settings, "reconcile", "--json", "--hour", this_hour)
    assert not found.answer["settled"] and "the window ends in" in found.answer["waits_for"][0]
    assert run_command(settings, "reconcile", "--hour", "yesterday").code == 2
    assert run_command(settings, "reconcile", "--hour", this_hour, "--last", "1h").code == 2
