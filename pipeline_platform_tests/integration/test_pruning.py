"""Old rejected events and discarded dead letters go; the account, its audit and the causes say what they said."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.dead_letters.operations import Filter, discard
from pipeline_platform.event.types import Lane, RejectedEvent
from pipeline_platform.queue import pruning
from pipeline_platform.settings import Settings
from pipeline_platform.watch.reports.daily import count_day
from pipeline_platform_tests.support.everything import places_of
from pipeline_platform_tests.support.queue import accept, accept_ids
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_ADDRESS = "planted-ann@example.org"
_NUL = {"a": "\0", "email": _ADDRESS}


@pytest.fixture
def old(conn: Conn, settings: Settings) -> Conn:
    """Seven rejected events and three discarded dead letters, 31 days old, of an hour that is kept all the same."""
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    tenant = add_tenant(conn, "acme").tenant_id
    accept_ids(conn, tenant, [uuid.uuid4() for _ in range(3)], **_NUL)
    accept_ids(conn, tenant, [uuid.uuid4()])
    drain(settings)
    discard(conn, Filter(), "a test")
    codes = ["missing_field"] * 5 + ["invalid_json"] * 2
    rejected = [RejectedEvent(tenant, _ADDRESS, code, f"{_ADDRESS} is odd", _ADDRESS.encode()) for code in codes]
    accept(conn, lane=Lane.OVERFLOW, rejected=rejected)
    conn.execute("UPDATE queue.dead_letters SET resolved_at = resolved_at - interval '31 days'")
    return conn


def _days_later(settings: Settings, conn: Conn, days: int) -> None:
    """As if so much time had passed: the rows keep their times, so that their hour can be recounted."""
    conn.execute(
        "SELECT queue.prune_rejected(clock_timestamp() + make_interval(days => %s), %s)", (days, pruning.ROWS_AT_ONCE)
    )
    pruning.prune(conn, settings)


def _said(conn: Conn) -> tuple[Any, ...]:
    found = funnel_of(conn)
    causes = {(cause.failed_in, cause.cause, cause.outcome): cause.events for cause in found.causes}
    day = count_day(conn, datetime.now(UTC).date())
    return found.numbers, causes, {(each.outcome, each.cause): (each.events, each.tenants) for each in day.causes}


def test_what_is_pruned_still_counts(old: Conn, settings: Settings) -> None:
    before = _said(old)
    pruning.prune(old, settings)
    assert old.execute("SELECT count(*) FROM queue.quarantine").fetchone() == (7,)
    _days_later(settings, old, 1)
    assert old.execute("SELECT count(*) FROM queue.quarantine").fetchone() == (0,)
    assert old.execute("SELECT count(*) FROM queue.dead_letters WHERE payload <> ''").fetchone() == (0,)
    # The second is a view of the first.
    assert places_of(old, settings.redis_url, _ADDRESS).keys() <= {"queue.batches_" + _hour(), "queue.encoded_batches"}
    assert _said(old) == before
    assert not audit(old).differences


def _hour() -> str:
    return f"{datetime.now(UTC):%Y%m%d_%H}"


def test_letters_of_an_hour_that_cannot_come_back_are_deleted_and_of_an_archived_one_emptied(
    old: Conn, settings: Settings
) -> None:
    causes = _said(old)[1]
    old.execute("UPDATE queue.hours SET dropped_at = now()")
    old.execute(
        "INSERT INTO control.archives (hour, address, events, bytes, sha256, seals, verified_at)"
        " SELECT hour, 'x', 1, 1, repeat('a', 64), 1, now() FROM queue.hours"
    )
    assert pruning.prune(old, settings) == 3
    letters = "SELECT count(*), count(*) FILTER (WHERE payload = '' AND message_id IS NULL) FROM queue.dead_letters"
    assert old.execute(letters).fetchone() == (3, 3)
    assert pruning.prune(old, settings) == 0
    old.execute("DELETE FROM control.archives")
    assert pruning.prune(old, settings) == 3
    assert old.execute(letters).fetchone() == (0, 0)
    assert _said(old)[1] == causes


def test_a_call_deletes_so_many_at_most(old: Conn, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 2)
    old.execute("UPDATE queue.quarantine SET received_at = received_at - %s", (timedelta(days=31),))
    assert pruning.prune(old, settings) == 4
    assert old.execute("SELECT count(*) FROM queue.quarantine").fetchone() == (5,)
