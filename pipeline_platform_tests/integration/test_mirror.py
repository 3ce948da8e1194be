"""The mirror: every accepted event goes to the old pipeline once, as its SDK would have sent it."""

import base64
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import queries
from pipeline_platform.event.types import event_id_of
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.gateway import Gateway
from pipeline_platform_tests.support.legacy_server import legacy_server
from pipeline_platform_tests.support.migration import open_epoch, point_mirror
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.servers import fresh_database, own_postgres
from pipeline_platform_tests.support.simulation import mirror
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]


def _accept(conn: Conn, tenant_id: int, *names: str, envelope: bytes = b"") -> None:
    accept(conn, *(event(tenant_id, name, userId=None, envelope=envelope) for name in names))


def _drained(conn: Conn) -> None:
    wait_for(
        "the mirror to be through", lambda: conn.execute("SELECT count(*) FROM queue.mirror").fetchone() == (0,), 30
    )


def _stages(conn: Conn) -> dict[str, tuple[int, int, int]]:
    rows = conn.execute(
        "SELECT stage, sum(arrived)::int, sum(proceeded)::int, sum(failed)::int FROM legacy.stage_counts GROUP BY stage"
    )
    return {row[0]: row[1:] for row in rows}


def test_every_event_arrives_as_it_was_sent(conn: Conn, settings: Settings) -> None:
    acme, umbra = add_tenants(conn, "acme", "Ümbra & Söhne")
    conn.execute("INSERT INTO control.legacy_keys VALUES (%s, 'old-key')", (acme.tenant_id,))
    open_epoch(conn, "shadow")
    with legacy_server() as old, mirror(settings):
        point_mirror(settings, old.url, headers=json.dumps({"X-Stage": "prod"}))
        _accept(conn, acme.tenant_id, "a", "b")
        _accept(conn, acme.tenant_id, "c", envelope=b'{"context":{"ip":"1.2.3.4"},"sentAt":"2026-01-01T00:00:00Z"}')
        _accept(conn, umbra.tenant_id, "d")
        _drained(conn)
    assert sorted(old.events) == ["a", "b", "c", "d"]
    headers = {event["messageId"]: headers for headers, body in old.got for event in body["batch"]}
    assert headers["a"]["Authorization"] == "Basic " + base64.b64encode(b"old-key:").decode()
    assert headers["a"]["X-Stage"] == "prod"
    assert "Authorization" not in headers["d"]
    assert headers["d"]["X-Pipeline-Tenant"] == "%C3%9Cmbra%20%26%20S%C3%B6hne"
    (around,) = [body for _, body in old.got if body["batch"][0]["messageId"] == "c"]
    assert around["context"] == {"ip": "1.2.3.4"} and around["sentAt"] == "2026-01-01T00:00:00Z"
    assert _stages(conn) == {"mirror": (4, 4, 0), "gateway": (4, 4, 0)}


def test_without_a_migration_nothing_is_mirrored(conn: Conn) -> None:
    (acme,) = add_tenants(conn, "acme")
    _accept(conn, acme.tenant_id, "a")
    open_epoch(conn, "shadow")
    open_epoch(conn, "legacy_off")
    _accept(conn, acme.tenant_id, "b")
    assert conn.execute("SELECT count(*) FROM queue.mirror").fetchone() == (0,)


@pytest.mark.parametrize(("status", "retries", "times"), [(429, 0, 1), (500, 2, 3), (400, 2, 1), (302, 2, 1)])
def test_what_is_refused_is_lost_at_its_gateway(
    conn: Conn, settings: Settings, status: int, retries: int, times: int
) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "legacy_only")
    with legacy_server(status) as old, mirror(settings):
        point_mirror(settings, old.url, retries=retries)
        _accept(conn, acme.tenant_id, "a", "b")
        _drained(conn)
    assert len(old.got) == times
    assert _stages(conn) == {"mirror": (2, 2, 0), "gateway": (2, 0, 2)}
    assert conn.execute("SELECT stage, cause FROM legacy.losses").fetchall() == [("gateway", f"status {status}")] * 2


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1/v1/batch"])
def test_what_reaches_nobody_is_lost_at_the_mirror(conn: Conn, settings: Settings, url: str | None) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    point_mirror(settings, url)
    _accept(conn, acme.tenant_id, "a")
    with mirror(settings):
        _drained(conn)
    assert _stages(conn) == {"mirror": (1, 0, 1)}


def test_batches_that_wait_too_long_are_given_up(conn: Conn, settings: Settings) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    with legacy_server() as old:
        point_mirror(settings, old.url, give_up_s=0.000001)
        _accept(conn, acme.tenant_id, "a")
        with mirror(settings):
            _drained(conn)
        assert not old.got
    assert conn.execute("SELECT cause FROM legacy.losses").fetchall() == [("waited too long",)]


@pytest.mark.parametrize("place", ["mirror.before_send", "mirror.after_send", "mirror.before_record"])
def test_a_mirror_that_died_sends_nothing_twice(conn: Conn, settings: Settings, place: str) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    with legacy_server() as old:
        point_mirror(settings, old.url)
        _accept(conn, acme.tenant_id, "a", "b")
        with mirror(settings, place) as first:
            first.processes["mirror"].wait(30)
        with mirror(settings):
            _accept(conn, acme.tenant_id, "c")
            _drained(conn)
        assert sorted(old.events) == (["c"] if place == "mirror.before_send" else ["a", "b", "c"])
    assert _stages(conn)["mirror"] == (3, 1, 2)
    assert conn.execute("SELECT DISTINCT cause FROM legacy.losses").fetchall() == [("the mirror died",)]


def test_a_hanging_old_pipeline_is_waited_for_no_longer_than_said(conn: Conn, settings: Settings) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    with legacy_server(hangs=True) as old, mirror(settings):
        point_mirror(settings, old.url, timeout_s=0.2)
        for number in range(20):
            _accept(conn, acme.tenant_id, f"m{number}")
        _drained(conn)
    assert _stages(conn) == {"mirror": (20, 0, 20)}


def test_a_slow_old_pipeline_loses_nothing_by_being_waited_for(conn: Conn, settings: Settings) -> None:
    tenants = add_tenants(conn, *(f"t{number}" for number in range(40)))
    open_epoch(conn, "shadow")
    for tenant in tenants:
        _accept(conn, tenant.tenant_id, tenant.name)
    # All of them take twice as long as one may.
    with legacy_server(takes_s=0.05) as old, mirror(settings):
        point_mirror(settings, old.url, requests_at_once=1, timeout_s=1.0)
        _drained(conn)
    assert sorted(old.events) == sorted(tenant.name for tenant in tenants)
    assert _stages(conn)["mirror"] == (40, 40, 0)


def test_what_a_route_or_the_gateway_knew_is_said(conn: Conn, settings: Settings, gateway: Gateway) -> None:
    open_epoch(conn, "shadow")
    with legacy_server() as old, mirror(settings):
        point_mirror(settings, old.url)
        bodies = ['{"userId": "u", "event": "x"} ', '{"userId":"u","event":"y","type":"page","messageId":null}']
        for body in bodies:
            assert gateway.post("/v1/track", body.encode()).status_code == 200
        _drained(conn)
    found = [event for _, body in old.got for event in body["batch"]]
    ids = {row[0] for row in conn.execute("SELECT event_id FROM queue.events")}
    assert {event_id_of(event["messageId"]) for event in found} == ids and len(ids) == 2
    assert [event["type"] for event in found] == ["track", "track"]


def test_no_request_is_larger_than_old_pipelines_take(conn: Conn, settings: Settings) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    names = [f"{number}-{'x' * (2_000 if number < 600 else 10)}" for number in range(1_200)]
    for at in range(0, len(names), 100):
        _accept(conn, acme.tenant_id, *names[at : at + 100])
    with legacy_server() as old, mirror(settings):
        point_mirror(settings, old.url)
        _drained(conn)
    assert sorted(old.events) == sorted(names)
    assert max(len(body["batch"]) for _, body in old.got) <= 500
    assert max(int(headers["Content-Length"]) for headers, _ in old.got) <= 500_000


def test_fates_known_while_the_database_was_away_are_written_down_later(home: Path, redis_url: str) -> None:
    postgres = own_postgres(home)
    settings = Settings(home=home, database_url=fresh_database(postgres, "mirrored"), redis_url=redis_url)
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        (acme,) = add_tenants(conn, "acme")
        open_epoch(conn, "shadow")
        _accept(conn, acme.tenant_id, "a", "b")
    with legacy_server(hangs=True) as old:
        point_mirror(settings, old.url)
        with mirror(settings):
            wait_for("the request", lambda: old.got)
            postgres.kill()
            old.open.set()
            postgres.start()
            with psycopg.connect(settings.database_url, autocommit=True) as conn:
                _drained(conn)
                assert _stages(conn) == {"mirror": (2, 2, 0), "gateway": (2, 2, 0)}
    assert len(old.got) == 1
    postgres.stop()


def test_a_fate_is_written_down_once(conn: Conn) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    _accept(conn, acme.tenant_id, "a")
    ids = [row[0] for row in conn.execute("UPDATE queue.mirror SET sending_at = now() RETURNING mirror_id")]
    hour = datetime(2026, 1, 1, tzinfo=UTC)
    fate = {
        "mirror_ids": ids, "tenant_ids": [acme.tenant_id], "hours": [hour], "stages": ["mirror"], "proceeded": [0],
        "failed": [1], "lost_tenant_ids": [acme.tenant_id], "lost_event_ids": [uuid.uuid4()],
        "lost_stages": ["mirror"], "lost_causes": ["x"],
    }  # fmt: skip
    for _ in range(2):
        conn.execute(queries("mirror")["record"], fate)
    assert _stages(conn) == {"mirror": (1, 0, 1)}
    assert conn.execute("SELECT count(*) FROM legacy.losses").fetchone() == (1,)


_FILE = """
[forward]
url = "{url}"
retries = 2
[output]
table = "public.old events"
settle_s = 7
compared = ["type", "properties"]
[output.columns]
tenant = "account"
message_id = "Msg"
received_at = "inserted"
type = "kind"
properties = "payload"
"""


def _old_table(conn: Conn, tenant: str) -> None:
    conn.execute(
        'CREATE TABLE public."old events" (account text, "Msg" text, inserted timestamp, kind text, payload json)'
    )
    conn.execute(
        """INSERT INTO public."old events" VALUES (%s, 'm-1', '2026-11-01T10:00', 'track', '{"a": 1}')""", (tenant,)
    )


def test_a_table_of_the_users_own_is_the_output(conn: Conn, settings: Settings, tmp_path: Path) -> None:
    (acme,) = add_tenants(conn, "acme")
    _old_table(conn, "acme")
    file = tmp_path / "legacy.toml"
    file.write_text(_FILE.format(url="http://127.0.0.1:1/v1/batch"))
    assert run_command(settings, "mirror", "configure", str(file), "--dry-run").code == 0
    assert run_command(settings, "mirror", "show", "--json").answer["output_table"] is None
    assert run_command(settings, "mirror", "configure", str(file)).code == 0
    found = conn.execute("SELECT tenant_id, event_id, type, properties, user_id FROM legacy.output").fetchall()
    assert found == [(acme.tenant_id, event_id_of("m-1"), "track", {"a": 1}, None)]
    shown = run_command(settings, "mirror", "show", "--json").answer
    conn.execute("SET TimeZone = 'Asia/Tokyo'")
    inserted = conn.execute("SELECT received_at FROM legacy.output").fetchone()
    assert inserted == (datetime(2026, 11, 1, 10, tzinfo=UTC),)
    assert (shown["retries"], shown["settle_s"], shown["compared"]) == (2, 7.0, ["type", "properties"])
    assert run_command(settings, "mirror", "key", "acme", "old").code == 0
    file.write_text("")
    assert run_command(settings, "mirror", "configure", str(file)).code == 0
    assert conn.execute("SELECT count(*) FROM legacy.output").fetchone() == (0,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('"kind"', '"kimd"'), "no column 'kimd' (for type); it has: account, Msg"),
        (("public.old events", "public.nowhere"), "there is no table or view 'public.nowhere'"),
        (('tenant = "account"', ""), "needs either tenant"),
        (('"type", "properties"', '"type", "context"'), "output.compared names context"),
        (('"type", "properties"', '"colour"'), "output.compared names 'colour'; there are: message_id"),
        (("http://", "ftp://"), "must begin with http"),
        (("http://", "http://me:secret@"), "must hold no user and password"),
        (("retries = 2", "retries = 99"), "forward: "),
        (("retries = 2", "tries = 2"), "unknown field `tries`"),
        (('"Msg"', '"Msg'), "legacy.toml"),
        (('properties = "payload"', 'properties = "account"'), "cannot be read as configured"),
        (('properties = "payload"', 'properties = "inserted"'), "cannot be read as configured"),
        (('tenant = "account"', 'tenant = "kind"'), "has a tenant that is known"),
        (('"type", "properties"', ""), "nothing would be compared"),
        (("retries = 2", 'headers = { X-A = "a\\nb" }'), "control characters"),
    ],
)
def test_a_wrong_description_is_named_and_changes_nothing(
    conn: Conn, settings: Settings, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    add_tenants(conn, "acme")
    _old_table(conn, "acme")
    file = tmp_path / "legacy.toml"
    file.write_text(_FILE.format(url="http://127.0.0.1:1/v1/batch").replace(*change))
    done = run_command(settings, "mirror", "configure", str(file))
    assert done.code == 2 and says in done.said, done.said
    assert conn.execute("SELECT forward_url, output_table FROM control.legacy_target").fetchone() == (None, None)
