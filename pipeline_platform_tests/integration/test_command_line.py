"""What operators type: what it answers, what it exits with, and what it leaves in the audit log."""

import json
import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError, NoSuchThingError, PipelineError
from pipeline_platform.event.types import RejectedEvent, TenantId
from pipeline_platform.settings import Settings
from pipeline_platform.tenants import tenants
from pipeline_platform.tenants.write_keys import hash_write_key
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.queue import accept, event

Conn = psycopg.Connection[Any]


def working(conn: Conn, write_key: str) -> bool:
    found = conn.execute(queries("gateway")["keys"], ([hash_write_key(write_key)],)).fetchall()
    return len(found) == 1


def actions(conn: Conn) -> list[str]:
    return [action for (action,) in conn.execute("SELECT action FROM control.audit_log ORDER BY entry_id")]


def test_a_tenant_is_added_with_a_key_that_is_stored_nowhere(conn: Conn, settings: Settings) -> None:
    added = run_command(settings, "tenant", "add", "acme", "--plan", "pro", "--json")
    assert added.code == 0
    assert set(added.answer) == {"tenant_id", "name", "write_key"}
    assert added.answer["name"] == "acme"
    assert working(conn, added.answer["write_key"])
    stored = conn.execute("SELECT t::text FROM control.tenants t UNION SELECT k::text FROM control.write_keys k")
    assert added.answer["write_key"] not in str(stored.fetchall())
    again = run_command(settings, "tenant", "add", "acme")
    assert (again.code, again.out) == (1, "")
    assert "key create acme" in again.said
    listed = run_command(settings, "tenant", "list", "--json").answer["tenants"]
    assert [(row["name"], row["plan"], row["working_keys"]) for row in listed] == [("acme", "pro", 1)]
    assert actions(conn) == ["tenant add", "key create"]


def test_keys_are_rotated_with_grace_and_revoked_at_once(conn: Conn) -> None:
    first = tenants.add_tenant(conn, "acme")
    second = tenants.rotate_key(conn, "acme", timedelta(hours=1))
    assert working(conn, first.write_key)
    assert working(conn, second.write_key)
    third = tenants.rotate_key(conn, "acme", timedelta())
    assert [working(conn, made.write_key) for made in (first, second, third)] == [False, False, True]
    tenants.revoke_key(conn, third.key_id)
    assert not working(conn, third.write_key)
    with pytest.raises(NoSuchThingError, match="key list"):
        tenants.revoke_key(conn, third.key_id)
    with pytest.raises(NoSuchThingError, match="tenant list"):
        tenants.create_key(conn, "nobody")
    with pytest.raises(NoSuchThingError, match=r"no tenant amce, xyz\. Did you mean acme\?"):
        tenants.tenant_ids_of(conn, ["acme", "amce", "xyz"])
    with pytest.raises(PipelineError, match="exists"):
        tenants.add_tenant(conn, "acme")
    assert actions(conn).count("key rotate") == 2
    assert [row["revoked_at"] is None for row in tenants.list_keys(conn, "acme")] == [False, False, False]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31m", "a\x9b", "a\u202eb", "x" * 201])
def test_a_name_that_cannot_be_seen_on_one_line_is_refused(conn: Conn, name: str) -> None:
    for add in (tenants.add_tenant, tenants.ensure_tenant):
        with pytest.raises(ConfigError, match="a tenant's name"):
            add(conn, name)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("INSERT INTO control.tenants (name) VALUES (%s)", (name,))
    assert tenants.add_tenant(conn, "Üß 日本 👩\u200d🚀").name


def test_a_tenant_that_cannot_be_added_is_wrong_usage(settings: Settings) -> None:
    done = run_command(settings, "tenant", "add", "")
    assert done.code == 2
    assert "a tenant's name is not blank" in done.said


def test_reading_commands_answer_with_one_object(conn: Conn, settings: Settings) -> None:
    tenant = TenantId(tenants.add_tenant(conn, "acme").tenant_id)
    bad = RejectedEvent(tenant, "bad", "unknown_type", "no such type", b"\xff{}")
    sent = event(tenant)
    accept(conn, sent, rejected=[bad])
    funnel = run_command(settings, "funnel", "--since", "2h", "--tenant", "acme", "--json")
    assert funnel.code == 0
    assert funnel.answer["balanced"] is True
    assert {name: funnel.answer[name] for name in ("received", "accepted", "rejected", "in_flight")} == {
        "received": 2,
        "accepted": 1,
        "rejected": 1,
        "in_flight": 1,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00\+00:00", funnel.answer["hours"][0]["hour"])
    audit = run_command(settings, "audit", "--json")
    assert audit.code == 0
    assert audit.answer["agrees_with_funnel"] is True
    assert {name: audit.answer[name] for name in funnel.answer if name in ("received", "in_flight", "balanced")} == {
        "received": 2,
        "in_flight": 1,
        "balanced": True,
    }
    found = run_command(settings, "trace", str(sent.event_id), "--json")
    assert (found.code, found.answer["accepted"][0]["outcome"]) == (0, "in_flight")
    assert found.answer["accepted"][0]["tenant"] == "acme"
    listed = run_command(settings, "quarantine", "list", "--json").answer["quarantined"]
    shown = run_command(settings, "quarantine", "show", str(listed[0]["quarantine_id"]), "--json").answer
    assert shown["payload"] == "\\xff{}"
    assert "unknown_type" in run_command(settings, "funnel").out


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "never-sent"),
        ("funnel", "--tenant", "nobody"),
        ("dead-letters", "show", "99"),
        ("quarantine", "show", "99"),
        ("key", "revoke", "99"),
    ],
)
def test_what_is_not_there_is_a_no(settings: Settings, words: tuple[str, ...]) -> None:
    assert run_command(settings, *words).code == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("funnel", "--since", "yesterday"), "--since"),
        (("dead-letters", "discard", "--reason", "all of them"), "needs ids or a filter"),
        (("dead-letters", "redrive", "7"), "--reason"),
        (("send", "events.ndjson"), "--write-key"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_usage_says_what_is_wrong(settings: Settings, words: tuple[str, ...], why: str) -> None:
    done = run_command(settings, *words)
    assert done.code == 2
    assert why in done.said


def test_without_a_platform_commands_say_how_to_start_one(settings: Settings) -> None:
    done = run_command(settings, "funnel", "--json", database_url="", redis_url="")
    assert (done.code, done.out) == (2, "")
    assert "pipeline-platform up" in done.said


def test_wrong_settings_are_all_named(settings: Settings) -> None:
    done = run_command(settings, "funnel", workers="none", gateway_port="-1")
    assert done.code == 2
    assert "PIPELINE_WORKERS" in done.said
    assert "PIPELINE_GATEWAY_PORT" in done.said


def test_the_servers_are_found_in_the_home(conn: Conn, settings: Settings) -> None:
    tenants.add_tenant(conn, "acme")
    endpoints = {
        "gateway": "http://127.0.0.1:1",
        "console": None,
        "dagster": None,
        "database_url": settings.database_url,
        "redis_url": settings.redis_url,
    }
    (settings.home / "endpoints.json").write_text(json.dumps(endpoints))
    listed = run_command(settings, "tenant", "list", "--json", database_url="", redis_url="")
    assert listed.answer["tenants"][0]["name"] == "acme"
    status = run_command(settings, "status", "--json", database_url="", redis_url="")
    assert status.code == 1
    assert status.answer["services"]["gateway"] is False
    assert status.answer["services"]["postgresql"] is True


def test_an_audit_that_differs_is_a_no(conn: Conn, settings: Settings) -> None:
    tenant = tenants.add_tenant(conn, "acme").tenant_id
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    conn.execute(
        "INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, in_flight)"
        " VALUES (%s, date_trunc('hour', now(), 'UTC'), 'live', 1, 1, 1)",
        (tenant,),
    )
    done = run_command(settings, "audit", "--json")
    assert done.code == 1
    assert done.answer["agrees_with_funnel"] is False
    assert {item["number"] for item in done.answer["differences"]} == {"received", "accepted", "in_flight"}
    conn.execute("UPDATE account.deltas SET in_flight = 0")
    assert run_command(settings, "funnel").code == 1


def test_doctor_names_a_remedy_for_what_is_not_well(conn: Conn, settings: Settings) -> None:
    done = run_command(settings, "doctor", "--json")
    findings = {finding["check"]: finding for finding in done.answer["findings"]}
    assert done.code == 1
    assert not findings["partitions"]["well"]
    assert findings["partitions"]["remedy"]
    # The server of the tests runs without fsync.
    assert "fsync" in findings["durability"]["found"]
    assert findings["postgresql"]["well"]


def test_migrating_twice_does_nothing_the_second_time(settings: Settings, empty_database_url: str) -> None:
    first = run_command(settings, "migrate", database_url=empty_database_url)
    assert first.code == 0
    assert "0001_baseline" in first.out and "queue/accept" in first.out
    assert "nothing to apply" in run_command(settings, "migrate", database_url=empty_database_url).out
