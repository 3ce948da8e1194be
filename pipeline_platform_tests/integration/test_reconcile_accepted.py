"""That everything accepted was delivered is seen by the batches' own sums; where these say no, event by event."""

import uuid
from typing import Any

import psycopg
import pytest

from pipeline_platform.migration.reconcile import Counts, default_window, reconcile
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


@pytest.fixture
def delivered(conn: Conn, settings: Settings) -> list[uuid.UUID]:
    """Ten events that both pipelines delivered, in two batches."""
    open_epoch(conn, "shadow")
    acme, _ = add_tenants(conn, "acme", "globex")
    made = [uuid.uuid4() for _ in range(10)]
    accept_ids(conn, acme.tenant_id, made[:4])
    accept_ids(conn, acme.tenant_id, made[4:])
    drain(settings)
    legacy_has(conn)
    settle(conn)
    return made


def _totals(conn: Conn) -> Counts:
    return reconcile(conn, *default_window(conn)).totals


def test_every_batch_has_a_sum_and_without_it_the_answer_is_the_same(conn: Conn, delivered: list[uuid.UUID]) -> None:
    assert conn.execute("SELECT count(*) FROM queue.batches WHERE identities IS NULL").fetchone() == (0,)
    with_sums = _totals(conn)
    conn.execute(
        "UPDATE queue.batches SET identities = NULL WHERE batch_id = (SELECT min(batch_id) FROM queue.batches)"
    )
    assert _totals(conn) == with_sums == Counts(accepted=10, platform=10, legacy=10, matched=10)


@pytest.mark.parametrize("has_sums", [True, False])
def test_an_event_that_ended_at_another_tenant_is_missing(
    conn: Conn, delivered: list[uuid.UUID], has_sums: bool
) -> None:
    if not has_sums:
        conn.execute("UPDATE queue.batches SET identities = NULL")
    for table in ("shadow.events", "legacy.events"):
        conn.execute(
            f"UPDATE {table} SET tenant_id = (SELECT tenant_id FROM control.tenants WHERE name = 'globex')"  # pyright: ignore
            " WHERE event_id = %s",
            (delivered[0],),
        )
    assert _totals(conn).missing == 1


@pytest.mark.parametrize("has_sums", [True, False])
def test_an_event_exchanged_for_another_is_missing(conn: Conn, delivered: list[uuid.UUID], has_sums: bool) -> None:
    """The numbers still agree."""
    other = uuid.uuid4()
    if not has_sums:
        conn.execute("UPDATE queue.batches SET identities = NULL")
    for table in ("shadow.events", "legacy.events"):
        conn.execute(f"UPDATE {table} SET event_id = %s WHERE event_id = %s", (other, delivered[0]))  # pyright: ignore
    assert _totals(conn).missing == 1
