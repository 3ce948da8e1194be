"""The audit log names the person of the operating system who acted, whatever acted."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.audit_log import actor, note
from pipeline_platform.dead_letters.circuit_switch import close_circuit
from pipeline_platform.dead_letters.operations import Filter, discard, redrive
from pipeline_platform.erasure.erase import erase
from pipeline_platform.migration.cutover.phases import Phase
from pipeline_platform.migration.cutover.transition import turn
from pipeline_platform.migration.mirror.configure import keep_key
from pipeline_platform.settings import Settings
from pipeline_platform.tenants import tenants
from pipeline_platform.watch.alerts.operations import resolve_alert

Conn = psycopg.Connection[Any]


def test_every_writer_says_who_acted(conn: Conn, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "jane")
    made = tenants.add_tenant(conn, "acme")
    tenants.rotate_key(conn, "acme", timedelta())
    tenants.revoke_key(conn, tenants.create_key(conn, "acme").key_id)
    conn.execute("INSERT INTO control.circuits (message) VALUES ('a test')")
    close_circuit(conn, "a test")
    redrive(conn, Filter(tenants=["acme"]), "a test")
    discard(conn, Filter(tenants=["acme"]), "a test")
    conn.execute("INSERT INTO control.alerts (kind, fingerprint, message) VALUES ('disk_low', 'f', 'm')")
    resolve_alert(conn, 1, "a test")
    keep_key(conn, made.tenant_id, "key")
    turn(conn, settings, Phase.SHADOW, reason="a test", force=True)
    erase(settings, "acme", "ann", "a test")
    logged = conn.execute("SELECT action, actor FROM control.audit_log ORDER BY entry_id").fetchall()
    assert {who for _, who in logged} == {"jane"}
    assert {action for action, _ in logged} == {
        "tenant add", "key create", "key rotate", "key revoke", "circuit close", "dead-letters redrive",
        "dead-letters discard", "alerts resolve", "mirror key", "cutover", "erase",
    }  # fmt: skip
    assert conn.execute("SELECT actor FROM control.erasures").fetchall() == [("jane",)]


def test_an_actor_can_be_given_and_cannot_be_left_out(conn: Conn) -> None:
    note(conn, "cutover", "a test", {}, by="demo")
    assert conn.execute("SELECT actor FROM control.audit_log").fetchall() == [("demo",)]
    with pytest.raises(psycopg.errors.NotNullViolation):
        conn.execute("INSERT INTO control.audit_log (action, reason) VALUES ('x', 'y')")


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert re.fullmatch(r"uid \d+", actor())


def test_nothing_else_writes_the_audit_log() -> None:
    root = Path(__file__).parents[2]
    files = [*(root / "sql" / "queries").glob("*.sql"), *(root / "pipeline_platform").rglob("*.py")]
    writers = {file.name for file in files if "INTO control.audit_log" in file.read_text()}
    # A replay says its actor itself.
    assert writers <= {"audit_log.sql", "replay.sql"}
