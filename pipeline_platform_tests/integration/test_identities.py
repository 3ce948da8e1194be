"""The identity of an event in a table of the user's own is the one that the gateway gives to its messageId."""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from pipeline_platform.event.types import event_id_of
from pipeline_platform.migration.identities import store_identities
from pipeline_platform.migration.mirror.configure import LegacyTarget, Output, configure
from pipeline_platform.migration.reconcile import reconcile
from pipeline_platform.migration.recovery.dropped import Window, find_dropped
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import open_epoch, settle
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.simulation import mirror
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_COLUMNS = {"tenant_id": "tenant", "message_id": "msg", "received_at": "at"}


@pytest.fixture
def acme(conn: Conn) -> Tenant:
    """A tenant, and a table of the user's own, which is empty."""
    conn.execute("CREATE TABLE public.old (tenant integer, msg text, at timestamptz)")
    configure(conn, LegacyTarget(output=Output("public.old", _COLUMNS, settle_s=0, compared=())))
    return add_tenants(conn, "acme")[0]


def _old_has(conn: Conn, tenant: Tenant, message_ids: Iterable[str | None], at: datetime | None) -> None:
    conn.execute("INSERT INTO public.old SELECT %s, unnest(%s::text[]), %s", (tenant.tenant_id, list(message_ids), at))


_HEX = "6F1f7c0e7a555b0c9d3e2f5f0d1d9a41"
_UUID = str(uuid.UUID(_HEX))
_FORMS = (
    _UUID, _UUID.upper(), _HEX, f"urn:{_HEX}", f"urn:uuid:{_UUID}", f"{{{_UUID}}}", "{{{{" + _HEX, f"{_HEX}----",
    f"----{_HEX}", f"{_UUID} ", f"{_UUID}\n", _UUID[:-1], _UUID.replace("-", "_"), _UUID[:-1] + "٣",
    f"{_HEX[:4]}-{_HEX[4:]}", "-".join(_HEX[at : at + 8] for at in range(0, 32, 8)), "é", "x" * 36, "", "x" * 100_000,
)  # fmt: skip


def test_every_form_of_a_message_id_has_the_identity_that_the_gateway_gives_it(conn: Conn, acme: Tenant) -> None:
    _old_has(conn, acme, [*_FORMS, *_FORMS, None], datetime.now(UTC))
    assert store_identities(conn) == 2 * (len(_FORMS) - 2)
    assert store_identities(conn) == 0
    found = set(conn.execute("SELECT message_id, event_id FROM legacy.output").fetchall())
    assert found == {(form, event_id_of(form)) for form in _FORMS} | {(None, None)}
    assert [form for form in _FORMS if event_id_of(form) == uuid.UUID(_HEX)] == [_UUID, _UUID.upper()]


_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
_ALMOST_A_UUID = st.builds(
    lambda it, at, to: str(it)[:at] + to + str(it)[at + 1 :], st.uuids(), st.integers(0, 35), _CHARACTERS
)


@given_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message_ids=st.lists(
        st.text(_CHARACTERS, min_size=1, max_size=40)
        | st.text("0123456789abcdefABCDEF-{}urn:", min_size=30, max_size=40)
        | st.uuids().map(str)
        | st.builds(
            lambda it, at, to: str(it)[:at] + to + str(it)[at + 1 :], st.uuids(), st.integers(0, 35), _CHARACTERS
        )
    )
)
def test_any_message_id_has_the_identity_that_the_gateway_gives_it(
    conn: Conn, acme: Tenant, message_ids: list[str]
) -> None:
    _old_has(conn, acme, message_ids, None)
    store_identities(conn)
    found = conn.execute("SELECT id, legacy.event_id_of(id) FROM unnest(%s::text[]) AS id", (message_ids,)).fetchall()
    assert found == [(message_id, event_id_of(message_id)) for message_id in message_ids]


def test_rows_that_were_received_before_are_not_read_again(conn: Conn, acme: Tenant) -> None:
    now = datetime.now(UTC)
    for name, at in (("old", now - timedelta(hours=3)), ("new", now - timedelta(minutes=30)), ("undated", None)):
        _old_has(conn, acme, [name], at)
    assert store_identities(conn, now) == 2
    assert store_identities(conn) == 1


def test_without_a_table_of_the_users_own_nothing_is_read(conn: Conn, acme: Tenant) -> None:
    _old_has(conn, acme, ["a"], datetime.now(UTC))
    configure(conn, LegacyTarget())
    assert store_identities(conn) == 0


def test_configuring_stores_the_identities_of_the_rows_that_are_there(conn: Conn, acme: Tenant) -> None:
    configure(conn, LegacyTarget())
    _old_has(conn, acme, ["a"], datetime.now(UTC))
    target = LegacyTarget(output=Output("public.old", _COLUMNS, compared=()))
    configure(conn, target, dry_run=True)
    assert conn.execute("SELECT count(*) FROM legacy.identities").fetchone() == (0,)
    configure(conn, target)
    assert conn.execute("SELECT event_id FROM legacy.output").fetchall() == [(event_id_of("a"),)]


def test_comparison_and_recovery_know_rows_that_came_a_moment_ago(conn: Conn, settings: Settings, acme: Tenant) -> None:
    names = [f"ajs-next-{number}" for number in range(10)]
    open_epoch(conn, "shadow")
    begin = datetime.now(UTC)
    accept(conn, *(event(acme.tenant_id, name) for name in names))
    drain(settings)
    _old_has(conn, acme, [*names[:7], "another"], datetime.now(UTC))
    settle(conn)
    window = Window(begin - timedelta(minutes=1), datetime.now(UTC))
    assert find_dropped(conn, window).events == 3
    conn.execute("DELETE FROM legacy.identities")
    found = reconcile(conn, window.start, window.end).totals
    assert (found.matched, found.dropped, found.extra) == (7, 3, 1)
    conn.execute("DELETE FROM legacy.identities")
    assert recover(conn, window, reason="x").recovered == 3
    shown = conn.execute("SELECT event_id, pipeline FROM analytics.production").fetchall()
    assert len(shown) == 11 and {row for row in shown if row[1] == "platform"} == {
        (event_id_of(name), "platform") for name in names[7:]
    }


def test_the_mirror_stores_what_arrives(conn: Conn, settings: Settings, acme: Tenant) -> None:
    with mirror(settings):
        for name in ("first", "second"):
            _old_has(conn, acme, [name], datetime.now(UTC))
            wait_for(name, lambda: conn.execute("SELECT FROM legacy.output WHERE event_id IS NULL").fetchone() is None)
    shown = conn.execute("SELECT event_id FROM analytics.production").fetchall()
    assert set(shown) == {(event_id_of("first"),), (event_id_of("second"),)}


def test_a_row_without_a_stored_identity_is_not_shown_as_production(conn: Conn, acme: Tenant) -> None:
    _old_has(conn, acme, ["a", "b", _UUID], datetime.now(UTC))
    assert conn.execute("SELECT message_id FROM analytics.production").fetchall() == [(_UUID,)]
