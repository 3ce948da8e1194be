"""A table of the user's own as old pipelines leave them: one bad row is one difference, and stops nothing."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.erasure.erase import erase
from pipeline_platform.migration.reconcile import Reconciliation, reconcile
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.migration import open_epoch, settle
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_FILE = """
[output]
table = "public.old"
settle_s = 0
compared = ["type", "user_id", "properties"]
[output.columns]
tenant = "account"
message_id = "msg"
received_at = "created"
type = "kind"
user_id = "person"
properties = "payload"
"""
_COPY = """
INSERT INTO public.old
SELECT t.name, d.message_id, d.received_at::text, d.type, d.user_id, d.properties::text
FROM account.delivered AS d JOIN control.tenants AS t USING (tenant_id)
"""


@pytest.fixture
def ids(conn: Conn, settings: Settings, tmp_path: Path) -> list[str]:
    """Ten events of acme and fifty of beta, which the old table has as text."""
    open_epoch(conn, "shadow")
    made: list[str] = []
    for tenant, events in zip(add_tenants(conn, "acme", "beta"), (10, 50), strict=True):
        for place in range(events):
            made.append(str(uuid.uuid4()))
            accept(conn, event(tenant.tenant_id, made[-1], properties={"n": place}, userId=f"u{place}"))
    drain(settings)
    conn.execute("CREATE TABLE public.old (account text, msg text, created text, kind text, person text, payload text)")
    conn.execute(_COPY)
    settle(conn)
    return made


def _configure(settings: Settings, tmp_path: Path, code: int = 0) -> str:
    file = tmp_path / "legacy.toml"
    file.write_text(_FILE)
    done = run_command(settings, "mirror", "configure", str(file))
    assert done.code == code, done
    return done.out + done.said


def _compare(conn: Conn) -> Reconciliation:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return reconcile(conn, row[0] - timedelta(hours=1), row[0])


def test_a_table_of_text_has_parity(conn: Conn, settings: Settings, ids: list[str], tmp_path: Path) -> None:
    said = _configure(settings, tmp_path)
    assert "looked at 60 of its rows: 0 without a known tenant" in " ".join(said.split())
    found = _compare(conn)
    assert (found.totals.matched, found.has_parity, found.unknown_rows) == (60, True, 0)


@pytest.mark.parametrize("payload", ["no JSON", "NaN", "", '{"a": "\\u0000"}', '{"a": 1', "[1, 2"])
def test_a_payload_that_cannot_be_read_is_one_difference(
    conn: Conn, settings: Settings, ids: list[str], tmp_path: Path, payload: str
) -> None:
    conn.execute("UPDATE public.old SET payload = %s WHERE msg = %s", (payload, ids[3]))
    assert "1 with JSON that cannot be read" in " ".join(_configure(settings, tmp_path).split())
    found = _compare(conn)
    assert (found.totals.matched, found.totals.mismatched, dict(found.fields)) == (59, 1, {"properties": 1})
    assert not found.has_parity
    assert payload == "" or payload not in str(found.samples)
    assert conn.execute("SELECT count(*) FROM analytics.production").fetchone() == (60,)
    answer = run_command(settings, "reconcile", "--last", "1h", "--json")
    assert (answer.code, answer.answer["mismatched"]) == (1, 1)


@pytest.mark.parametrize(
    ("change", "unknown", "untimed"),
    [
        ("UPDATE public.old SET account = 'Acme' WHERE msg = %s", 1, 0),
        ("UPDATE public.old SET msg = NULL WHERE msg = %s", 1, 0),
        ("UPDATE public.old SET created = NULL WHERE msg = %s", 0, 1),
        ("UPDATE public.old SET created = 'yesterday or so' WHERE msg = %s", 0, 1),
    ],
)
def test_a_row_that_belongs_to_no_event_is_counted_and_is_no_parity(
    conn: Conn, settings: Settings, ids: list[str], tmp_path: Path, change: str, unknown: int, untimed: int
) -> None:
    conn.execute(change, (ids[3],))  # pyright: ignore[reportArgumentType]
    _configure(settings, tmp_path)
    found = _compare(conn)
    assert (found.coverage["unknown_rows"], found.coverage["untimed_rows"]) == (unknown, untimed)
    assert (found.totals.dropped, found.totals.extra, found.has_parity) == (1, 0, False)


def test_a_tenant_that_is_spelled_differently_is_named(
    conn: Conn, settings: Settings, ids: list[str], tmp_path: Path
) -> None:
    conn.execute("UPDATE public.old SET account = 'Beta Inc' WHERE account = 'beta'")
    _configure(settings, tmp_path)
    found = _compare(conn)
    assert (found.unmatched_tenants, found.coverage["unknown_rows"], found.has_parity) == (["beta"], 50, False)
    said = run_command(settings, "reconcile", "--last", "1h").out
    assert "tenants of which nothing was matched (see [output.columns]): beta" in said
    assert "compared columns: type, user_id, properties" in said


def test_a_column_that_names_no_tenant_is_refused(
    conn: Conn, settings: Settings, ids: list[str], tmp_path: Path
) -> None:
    conn.execute("UPDATE public.old SET account = kind")
    said = _configure(settings, tmp_path, code=2)
    assert "none of the 60 rows that were looked at has a tenant that is known" in said


def test_an_erased_person_is_not_shown_as_production(
    conn: Conn, settings: Settings, ids: list[str], tmp_path: Path
) -> None:
    _configure(settings, tmp_path)
    assert conn.execute("SELECT count(*) FROM analytics.production WHERE user_id = 'u4'").fetchone() == (2,)
    found = erase(settings, "acme", "u4", "request 1")
    assert "public.old" in " ".join(found.not_ours)
    theirs = conn.execute("SELECT count(*) FROM public.old WHERE person = 'u4' AND account = 'acme'").fetchone()
    assert theirs == (1,), "the platform has no rights on the table"
    left = conn.execute("SELECT tenant_id FROM analytics.production WHERE user_id = 'u4'").fetchall()
    assert len(left) == 1, "beta's person of the same id stays"
