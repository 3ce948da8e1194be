"""How alerts open, are told and end: on a real PostgreSQL and a real webhook."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect
from pipeline_platform.dead_letters.operations import Filter, count_open, discard
from pipeline_platform.errors import ConfigError, NoSuchThingError
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.channels import channels_of
from pipeline_platform.watch.alerts.conditions import CONDITIONS, look_at
from pipeline_platform.watch.alerts.delivery import Delivery
from pipeline_platform.watch.alerts.objectives import objectives_of
from pipeline_platform.watch.alerts.operations import list_alerts, resolve_alert, show_alert, try_channels
from pipeline_platform.watch.alerts.process import Alerter
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.webhook import Webhook
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_UNLOADABLE = {"a": "\0"}
_OPEN = "SELECT kind, fingerprint, tenant_id FROM control.alerts WHERE resolved_at IS NULL ORDER BY kind, alert_id"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with Webhook(refusals=0) as running:
        yield running


@pytest.fixture
def told(settings: Settings, hook: Webhook) -> Settings:
    """Settings with that webhook."""
    return settings.model_copy(update={"alert_urls": hook.url})


@contextmanager
def delivering(conn: Conn, settings: Settings) -> Iterator[Delivery]:
    delivery = Delivery(settings, channels_of(settings))
    assert delivery.begin(conn)
    yield delivery


def _open(conn: Conn, *fingerprints: str) -> None:
    for fingerprint in fingerprints:
        conn.execute(
            "INSERT INTO control.alerts (kind, fingerprint, message) VALUES ('lag_high', %s, 'm')", (fingerprint,)
        )


def test_a_rolled_back_alert_is_told_to_nobody(conn: Conn, told: Settings, hook: Webhook) -> None:
    with psycopg.connect(told.database_url) as other:
        _open(other, "never")
        other.rollback()
    _open(conn, "live")
    with delivering(conn, told) as delivery:
        delivery.deliver(conn)
        delivery.deliver(conn)
    assert [message.title for message in hook.taken] == ["Events wait too long (live)"]


def test_many_at_once_are_one_message_and_pagerduty_gets_each(conn: Conn, told: Settings, hook: Webhook) -> None:
    _open(conn, *(f"lane {number}" for number in range(50)))
    with delivering(conn, told) as delivery:
        delivery.deliver(conn)
        delivery.deliver(conn)
    (message,) = hook.taken
    assert message.title == "50 alerts opened, 0 resolved"
    assert "and 20 more" in message.text
    assert conn.execute("SELECT count(*) FROM control.alert_deliveries WHERE sent_at IS NULL").fetchone() == (0,)
    (pagerduty,) = channels_of(told.model_copy(update={"alert_urls": f"pagerduty://{'a' * 32}@{'b' * 20}"}))
    assert not pagerduty.takes_digests


def test_a_new_channel_is_told_of_what_is_open_and_a_removed_one_is_forgotten(
    conn: Conn, told: Settings, hook: Webhook
) -> None:
    _open(conn, "live", "over")
    conn.execute("UPDATE control.alerts SET resolved_at = now() WHERE fingerprint = 'over'")
    with delivering(conn, told.model_copy(update={"alert_urls": ""})) as delivery:
        delivery.deliver(conn)
    with Webhook(refusals=0) as second, delivering(conn, told) as delivery:
        delivery.deliver(conn)
        assert [message.title for message in hook.taken] == ["Events wait too long (live)"]
        both = told.model_copy(update={"alert_urls": f"{hook.url} {second.url}"})
        with delivering(conn, both) as wider:
            wider.deliver(conn)
        assert [message.title for message in second.taken] == ["Events wait too long (live)"]
    with delivering(conn, told) as delivery:
        delivery.deliver(conn)
    assert len(hook.taken) == 1
    assert conn.execute("SELECT count(*) FROM control.alert_channels").fetchone() == (1,)


def test_a_kind_of_another_version_is_told_by_its_name(conn: Conn, told: Settings, hook: Webhook) -> None:
    (tenant,) = add_tenants(conn, "big corp")
    conn.execute("INSERT INTO control.alerts (kind, fingerprint, message) VALUES ('newer', 'f', 'm')")
    conn.execute(
        "INSERT INTO control.alerts (kind, fingerprint, tenant_id, message) VALUES ('delivery_rate_low', 'f', %s, 'm')",
        (tenant.tenant_id,),
    )
    with delivering(conn, told) as delivery:
        delivery.deliver(conn)
    newer, rate = hook.taken
    assert newer.title == "newer (f)" and "runbook: docs/runbooks/README.md" in newer.text
    assert "next: pipeline-platform funnel --tenant 'big corp'" in rate.text


def test_one_delivers_at_a_time(conn: Conn, told: Settings) -> None:
    with delivering(conn, told), connect(told.database_url, "second") as second:
        assert not Delivery(told, channels_of(told)).begin(second)


def test_no_url_of_a_channel_is_stored_or_said(conn: Conn, settings: Settings) -> None:
    secret = settings.model_copy(update={"alert_urls": "json://user:geheim@127.0.0.1:9/"})
    _open(conn, "live")
    with delivering(conn, secret) as delivery:
        delivery.deliver(conn)
    row = conn.execute("SELECT channel, failures, last_error FROM control.alert_channels").fetchone()
    assert row and row[1] == 1 and row[2]
    assert "geheim" not in str(row)
    answer = run_command(settings, "alerts", "test", alert_urls=secret.alert_urls)
    assert answer.code == 1
    assert "Connection error" in answer.out
    assert "geheim" not in answer.out + answer.err


@pytest.mark.parametrize("urls", ["nonsense://x", "slack://geheim"])
def test_a_channel_that_is_none_is_named_by_its_schema_alone(settings: Settings, urls: str) -> None:
    with pytest.raises(ConfigError, match=urls.partition(":")[0]) as error:
        Alerter(settings.model_copy(update={"alert_urls": urls}))
    assert "geheim" not in str(error.value)


def test_one_cause_of_two_tenants_is_an_alert_of_each(conn: Conn, settings: Settings) -> None:
    settings = settings.model_copy(update={"attempts_max": 1, "alert_quiet_s": 0.0})
    tenants = [tenant.tenant_id for tenant in add_tenants(conn, "acme", "globex")]
    for tenant in tenants:
        accept_ids(conn, tenant, [uuid.uuid4(), uuid.uuid4()], **_UNLOADABLE)
    drain(settings)
    ((fingerprint, *_),) = {(row["fingerprint"],) for row in count_open(conn, Filter())}
    expected = [("dead_letter_exhausted", fingerprint, tenant) for tenant in tenants]
    assert conn.execute(_OPEN).fetchall() == expected
    open_partitions(conn)
    look_at(conn, settings)
    assert [row for row in conn.execute(_OPEN).fetchall() if row[0] == "dead_letter_exhausted"] == expected
    counts = "SELECT occurrences, sample_id IS NOT NULL FROM control.alerts WHERE kind = 'dead_letter_exhausted'"
    assert conn.execute(counts).fetchall() == [(2, True), (2, True)]
    discard(conn, Filter(tenants=["acme"]), "a test")
    assert [row for row in conn.execute(_OPEN).fetchall() if row[0] == "dead_letter_exhausted"] == expected[1:]


def test_what_comes_and_goes_is_one_alert(conn: Conn, settings: Settings) -> None:
    accept_ids(conn, add_tenants(conn, "acme")[0].tenant_id, [uuid.uuid4()])
    queue = [condition for condition in CONDITIONS if "queue" in str(condition.look)]
    slow = settings.model_copy(update={"objective_lag_s": 0.001, "alert_quiet_s": 60.0})
    for _ in range(3):
        assert look_at(conn, slow, queue)
        assert not look_at(conn, slow.model_copy(update={"objective_lag_s": 3600.0}), queue)
    rows = "SELECT count(*), count(*) FILTER (WHERE resolved_at IS NULL) FROM control.alerts WHERE kind = 'lag_high'"
    assert conn.execute(rows).fetchone() == (1, 1)
    conn.execute("UPDATE control.alerts SET last_seen_at = now() - interval '2 minutes'")
    look_at(conn, slow.model_copy(update={"objective_lag_s": 3600.0}), queue)
    assert conn.execute(rows).fetchone() == (1, 0)


def test_the_history_that_an_import_brings_is_no_lag(conn: Conn, settings: Settings) -> None:
    at = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    line = json.dumps({"tenant": "acme", "type": "track", "event": "e", "userId": "u", "at": at}).encode()
    words = ("import", "-", "--tenant-field", "tenant", "--received-at", "at")
    assert run_command(settings, *words, stdin=line).code == 0
    assert conn.execute("SELECT count(*) FROM queue.work").fetchone() == (1,)
    assert "lag_high" not in [found.kind for found in look_at(conn, settings)]
    accept_ids(conn, 1, [uuid.uuid4()])
    conn.execute("UPDATE queue.work SET received_at = now() - interval '1 hour'")
    assert [found.occurrences for found in look_at(conn, settings) if found.kind == "lag_high"] == [1]


def test_objectives_and_their_budget_are_exact(conn: Conn, settings: Settings) -> None:
    acme, globex = add_tenants(conn, "acme", "globex")
    accept_ids(conn, acme.tenant_id, [uuid.uuid4() for _ in range(99)])
    accept_ids(conn, acme.tenant_id, [uuid.uuid4()], **_UNLOADABLE)
    accept_ids(conn, globex.tenant_id, [uuid.uuid4() for _ in range(10)])
    drain(settings)
    asked = settings.model_copy(update={"objective_delivered_ratio": 0.98, "objective_latency_p95_ms": 1e9})
    found = objectives_of(conn, asked)
    first = {row["tenant"]: row for row in found["tenants"] if row["window_h"] == 1}
    assert (first["acme"]["good"], first["acme"]["bad"], first["acme"]["rate"]) == (99, 1, 0.99)
    assert first["acme"]["left"] == pytest.approx(0.5)
    assert (first["globex"]["good"], first["globex"]["left"]) == (10, 1.0)
    assert found["met"] and [row["window_h"] for row in found["windows"]] == [1, 24, 720]
    said = run_command(settings, "objectives", "--json", objective_latency_p95_ms="1000000")
    assert said.code == 1 and not said.answer["met"], "one of 110 is more than one of ten thousand"


def test_the_command_line_lists_shows_and_ends_alerts(conn: Conn, told: Settings) -> None:
    assert list_alerts(conn, told) == []
    _open(conn, "live")
    with delivering(conn, told) as delivery:
        delivery.deliver(conn)
    listed = run_command(told, "alerts", "list", "--json")
    (alert,) = listed.answer["alerts"]
    assert listed.code == 1
    assert (alert["severity"], alert["runbook"]) == ("warning", "docs/runbooks/lag_high.md")
    assert alert["next"] == "pipeline-platform status"
    shown = run_command(told, "alerts", "show", str(alert["alert_id"]))
    assert "Events wait too long (live)" in shown.out and "opened" in shown.out
    assert [row["change"] for row in show_alert(conn, told, alert["alert_id"])["deliveries"]] == ["opened"]
    assert run_command(told, "alerts", "resolve", str(alert["alert_id"]), "--reason", "seen").code == 0
    with pytest.raises(NoSuchThingError):
        resolve_alert(conn, alert["alert_id"], "again")
    with pytest.raises(NoSuchThingError):
        show_alert(conn, told, 999)
    with pytest.raises(ConfigError, match="no kind 'nonsense'"):
        list_alerts(conn, told, kind="nonsense")
    with pytest.raises(ConfigError, match="no channel is configured"):
        try_channels(told.model_copy(update={"alert_urls": ""}))
    assert conn.execute("SELECT reason FROM control.audit_log").fetchall() == [("seen",)]


def test_the_heartbeat_beats_while_alerts_can_be_found(told: Settings, hook: Webhook) -> None:
    beat = hook.url.replace("json://", "http://") + "beat"
    alerter = Alerter(told.model_copy(update={"alert_heartbeat_url": beat, "alert_heartbeat_s": 0.1}))
    thread = threading.Thread(target=alerter.run)
    thread.start()
    wait_for("two heartbeats", lambda: sum(told.text == "/beat" for told in hook.taken) >= 2)
    alerter.stop()
    thread.join()


def test_a_schedule_is_not_silent_between_its_ticks_but_may_fail(conn: Conn, settings: Settings) -> None:
    conn.execute(
        "INSERT INTO control.sensor_ticks (name, interval_s, ticked_at, error) VALUES"
        " ('hourly', NULL, now() - interval '50 minutes', NULL), ('nightly', NULL, now() - interval '1 hour', 'broke'),"
        " ('sealed_hours', 30, now() - interval '50 minutes', NULL), ('sensor_reports', NULL, now(), NULL)"
    )
    found = {(each.kind, each.fingerprint) for each in look_at(conn, settings) if each.kind.startswith("sensor_")}
    assert found == {("sensor_silent", "sealed_hours"), ("sensor_failed", "nightly")}
    conn.execute("UPDATE control.sensor_ticks SET reported_at = now() - interval '1 hour'")
    found = {(each.kind, each.fingerprint) for each in look_at(conn, settings) if each.kind == "sensor_silent"}
    assert found == {("sensor_silent", "sensor_reports")}


def test_a_condition_that_nobody_finds_any_more_says_nothing_of_others(conn: Conn, settings: Settings) -> None:
    _open(conn, "live")
    conn.execute("UPDATE control.alerts SET last_seen_at = now() - interval '1 day'")
    look_at(conn, settings, CONDITIONS[:1])
    assert conn.execute(_OPEN).fetchall() == [("lag_high", "live", None)]
