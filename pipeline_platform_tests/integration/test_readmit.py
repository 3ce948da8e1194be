"""Quarantined events are corrected and let in, once, and the account says both."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.db import connect, queries
from pipeline_platform.event import Lane, RejectedEvent, TenantId
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import accept_params, claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING, Engine
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.ledger import add_tenants

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
    rejected = [
        RejectedEvent(TenantId(acme.tenant_id), None, "missing_field", "userId is missing", p) for p in payloads
    ]
    conn.execute(queries("queue")["accept"], accept_params(Lane.LIVE, [], rejected))
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
    lookups = Lookups(settings, settings.redis_url)
    with connect(settings.database_url, "test worker", more=PLANNING) as own:
        while Engine(settings, own, lookups).step(lambda conn: claim(conn, Lane.OVERFLOW, 100, 0)).claimed:
            pass
    lookups.close()
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
