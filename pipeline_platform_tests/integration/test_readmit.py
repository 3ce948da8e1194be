"""Quarantined events are corrected and let in, once, and the account says both."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.db import connect
from pipeline_platform.dead_letters.readmit import Quarantined, readmit
from pipeline_platform.erasure.erase import erase
from pipeline_platform.event.types import RejectedEvent
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.queue import accept
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_CORRECT = """
import json
def correct(payload):
    event = json.loads(payload)
    if event["event"] == "spam":
        return None
    if event["event"] == "hopeless":
        return {}
    event["userId"] = event["n"] * 7
    return event
"""


@pytest.fixture
def quarantine(conn: Conn, tmp_path: Path) -> Path:
    """1,200 events without a user, some spam, some hopeless, one that is no JSON; and the file that corrects them."""
    (acme,) = add_tenants(conn, "acme")
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    payloads = [b'{"type":"track","event":"e","n":%d}' % n for n in range(1_200)]
    payloads += [b'{"type":"track","event":"spam"}'] * 3 + [b'{"type":"track","event":"hopeless"}'] * 2 + [b"{"]
    rejected = [RejectedEvent(acme.tenant_id, None, "missing_field", "userId is missing", p) for p in payloads]
    accept(conn, rejected=rejected)
    file = tmp_path / "correct.py"
    file.write_text(_CORRECT)
    return file


def test_what_is_corrected_is_let_in_once(conn: Conn, settings: Settings, quarantine: Path) -> None:
    words = ("quarantine", "readmit", "--code", "missing_field", "--correct", str(quarantine), "--json")
    assert run_command(settings, *words).code == 2
    expected = {"accepted": 1_200, "left": 3, "refused": {"missing_field": 2, "correction_failed": 1}}
    for more in (["--dry-run"], ["--reason", "sender fixed"]):
        done = run_command(settings, *words, *more)
        assert done.code == 1
        assert {name: done.answer[name] for name in expected} == expected
    logged = conn.execute(
        "SELECT reason, jsonb_array_length(detail->'quarantine_ids') FROM control.audit_log"
    ).fetchall()
    assert {reason for reason, _ in logged} == {"sender fixed"} and sum(events for _, events in logged) == 1_200
    again = run_command(settings, *words, "--reason", "again").answer
    assert (again["accepted"], again["left"]) == (0, 3)
    drain(settings)
    found = conn.execute(
        "SELECT count(*), count(DISTINCT event_id), max(user_id::int) FROM analytics.events"
    ).fetchone()
    assert found == (1_200, 1_200, 1_199 * 7)
    assert not audit(conn).differences


def test_a_file_that_corrects_nothing_is_named(settings: Settings, quarantine: Path) -> None:
    quarantine.write_text("x = 1")
    refused = run_command(
        settings, "quarantine", "readmit", "--correct", str(quarantine), "--tenant", "acme", "--dry-run"
    )
    assert run_command(settings, "quarantine", "readmit", "--correct", str(quarantine), "--dry-run").code == 2
    assert refused.code == 2 and "has no function correct" in refused.said


_WHOLE = Quarantined(tenant="acme")


def _reject(conn: Conn, **body: str) -> None:
    (acme,) = add_tenants(conn, "acme")
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    event = RejectedEvent(acme.tenant_id, None, "missing_field", "event is missing", json.dumps(body).encode())
    accept(conn, rejected=[event])


def _named(payload: bytes) -> dict[str, Any]:
    return {"userId": "eve"} | json.loads(payload) | {"type": "track", "event": "E"}


def _kept(conn: Conn) -> int:
    """Bytes of events, in quarantine and in batches."""
    row = conn.execute(
        "SELECT (SELECT coalesce(sum(octet_length(payload)), 0) FROM queue.quarantine)"
        " + (SELECT coalesce(sum(n), 0) FROM queue.batches, unnest(lengths) AS n)"
    ).fetchone()
    assert row
    return int(row[0])


def test_an_erasure_that_begins_during_a_readmission_erases_what_was_let_in(conn: Conn, settings: Settings) -> None:
    _reject(conn, userId="eve")
    entered, go_on = threading.Event(), threading.Event()

    def correct(payload: bytes) -> dict[str, Any]:
        entered.set()
        assert go_on.wait(30)
        return _named(payload)

    with ThreadPoolExecutor(2) as pool, connect(settings.database_url, "cli") as own:
        readmitting = pool.submit(readmit, own, settings, _WHOLE, correct, "fixed", dry_run=False)
        assert entered.wait(30)
        erasing = pool.submit(erase, settings, "acme", "eve", "request 1")
        asks = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pipeline-platform erase'"
        wait_for("the erasure to ask for its turn", lambda: conn.execute(asks).fetchone())
        go_on.set()
        assert readmitting.result().accepted == 1
        assert erasing.result().outcomes == {"in_flight": 1}
    assert _kept(conn) == 0
    assert not audit(conn).differences


def test_a_readmission_that_begins_during_an_erasure_lets_nobody_in(conn: Conn, settings: Settings) -> None:
    _reject(conn, userId="eve")
    with (
        ThreadPoolExecutor(2) as pool,
        connect(settings.database_url, "older") as older,
        connect(settings.database_url, "cli") as own,
    ):
        with older.transaction():
            older.execute("SELECT 1")
            erasing = pool.submit(erase, settings, "acme", "eve", "request 1")
            wait_for("tombstones", lambda: conn.execute("SELECT 1 FROM control.tombstones").fetchone())
            readmitting = pool.submit(readmit, own, settings, _WHOLE, _named, "fixed", dry_run=False)
            wait_for("the readmission to ask for its turn", lambda: conn.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND application_name = 'pipeline-platform cli'",
                ("%try_advisory%",)).fetchone())  # fmt: skip
        erasing.result()
        assert readmitting.result().accepted == 0
    assert _kept(conn) == 0


def test_nobody_is_let_in_after_an_erasure_that_was_killed(conn: Conn, settings: Settings) -> None:
    _reject(conn, userId="eve")
    words = ("erase", "--tenant", "acme", "--user", "eve", "--reason", "request 1")
    assert run_command(settings, *words, kill_point="erase.after_tombstones").code == -9
    done = readmit(conn, settings, _WHOLE, _named, "fixed", dry_run=False)
    assert (done.accepted, dict(done.refused)) == (0, {"erased": 1})


def test_a_correction_that_names_an_erased_person_is_refused(conn: Conn, settings: Settings) -> None:
    _reject(conn, anonymousId="somebody")
    erase(settings, "acme", "eve", "request 1")
    assert dict(readmit(conn, settings, _WHOLE, _named, "fixed", dry_run=True).refused) == {"erased": 1}
    _reject_again(conn)
    assert readmit(conn, settings, _WHOLE, _named, "fixed", dry_run=False).accepted == 1


def _reject_again(conn: Conn) -> None:
    """As if it were sent after the erasure: that is a new consent."""
    conn.execute("UPDATE queue.quarantine SET received_at = clock_timestamp()")
