"""The console over HTTP: what it says is the account's, what changes is sent, and it outlives its database."""

import gzip
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import plotly
import psycopg
import pytest

from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.settings import Settings
from pipeline_platform.watch.console.snapshot import beginning, open_connection
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.console import ConsoleProcess, stages_of, text_of
from pipeline_platform_tests.support.migration import open_epoch
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.servers import OwnServer, fresh_database, own_postgres
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_HOSTILE = "<script>alert('x')</script> & \"a/b?c=d#e\""


@pytest.fixture
def console(settings: Settings) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(settings) as process:
        yield process


def new_ids(events: int) -> list[uuid.UUID]:
    return [uuid.uuid4() for _ in range(events)]


def plant_dead_letters(conn: Conn, tenant_id: int, events: int, error: str = "no such column") -> None:
    conn.execute(
        "INSERT INTO queue.dead_letters (tenant_id, event_id, type, lane, batch_id, event_index, batch_received_at,"
        " received_at, payload, failed_in, error_class, error, fingerprint, state, attempts)"
        " SELECT %s, gen_random_uuid(), 't', 'live', 1, n, now(), now(), '', 'load', 'UndefinedColumn', %s, 'f00d',"
        " 'exhausted', 5 FROM generate_series(1, %s) AS n",
        (tenant_id, error, events),
    )


def test_the_page_says_what_the_funnel_says(console: ConsoleProcess, settings: Settings, conn: Conn) -> None:
    acme = add_tenant(conn, "acme").tenant_id
    globex = add_tenant(conn, "globex").tenant_id
    accept_ids(conn, acme, new_ids(7))
    accept_ids(conn, globex, new_ids(1_234))
    drain(settings)
    accept_ids(conn, acme, new_ids(2))
    page = console.page()
    counted = run_command(settings, "funnel", "--since", "1h", "--json").answer
    assert stages_of(page) == {stage["stage"]: stage["arrived"] for stage in counted["stages"]}
    assert (counted["received"], counted["delivered"]) == (1_243, 1_241)
    assert "1,243 received = 1,243 accepted + 0 rejected" in text_of(page)
    assert "2 waiting" in text_of(page)
    assert stages_of(console.page("/?tenant=acme")) == dict.fromkeys(("received", "accepted"), 9) | dict.fromkeys(
        ("claimed", "enriched", "delivered"), 7
    )


def test_changes_are_sent_and_nothing_else(console: ConsoleProcess, settings: Settings, conn: Conn) -> None:
    acme = add_tenant(conn, "acme").tenant_id
    with console.messages() as messages:
        first = next(messages)
        assert {"status", "verdict", "funnel", "tenants", "queue"} <= first.keys()
        accept_ids(conn, acme, new_ids(5))
        drain(settings)
        later = next(message for message in messages if stages_of(message.get("funnel", "")).get("delivered") == 5)
        assert "replays" not in later


def test_both_pipelines_stand_side_by_side_while_one_moves_over(console: ConsoleProcess, conn: Conn) -> None:
    acme = add_tenant(conn, "acme").tenant_id
    open_epoch(conn, "shadow")
    assert "The old pipeline" not in console.page()
    hour = beginning(conn.execute("SELECT now() + interval '1 hour'").fetchone()[0])  # pyright: ignore[reportOptionalSubscript]
    for stage, arrived, failed in (("mirror", 100, 0), ("gateway", 100, 0), ("lookup", 100, 12), ("write", 88, 0)):
        conn.execute(
            "INSERT INTO legacy.stage_counts VALUES (%s, %s, %s, %s, %s, %s)",
            (acme, hour, stage, arrived, arrived - failed, failed),
        )
    conn.execute(
        "INSERT INTO legacy.losses (tenant_id, event_id, stage, cause)"
        " SELECT %s, gen_random_uuid(), 'lookup', 'time-out' FROM generate_series(1, 12)",
        (acme,),
    )
    page = console.page_that("12 failed")
    lookup = page.partition('data-stage="lookup"')[2].partition("</tr>")[0]
    assert "12 failed time-out 12" in text_of(lookup)
    assert page.count("failed</p>") == 1
    text = text_of(page)
    assert "88.00% of mirrored events delivered" in text
    assert "Is anything lost? ! look here 12 in the old pipeline" in text
    assert "For whom? ! look here acme" in text


def test_what_is_wrong_is_named(console: ConsoleProcess, settings: Settings, conn: Conn) -> None:
    acme = add_tenant(conn, "acme").tenant_id
    accept_ids(conn, acme, new_ids(3))
    drain(settings)
    assert "Is anything lost? ✓ fine No" in text_of(console.page())
    conn.execute("UPDATE account.counters SET delivered = delivered - 1")
    conn.execute("UPDATE account.deltas SET delivered = delivered - 1")
    conn.execute("INSERT INTO control.circuits (message) VALUES ('9 of 10 events fail')")
    plant_dead_letters(conn, acme, 4)
    text = text_of(console.page_that("f00d"))
    assert "Is anything lost? ! look here It does not balance" in text
    assert "pipeline-platform audit" in text
    assert "How late is it? ! look here Workers are stopped 9 of 10 events fail" in text
    assert "For whom? ! look here acme" in text
    assert "f00d load UndefinedColumn no such column 4 4 1" in text


def test_latency_is_judged_by_the_objective_as_its_alert_is(settings: Settings, conn: Conn) -> None:
    acme = add_tenant(conn, "acme").tenant_id
    accept_ids(conn, acme, new_ids(30))
    drain(settings)
    alert = "INSERT INTO control.alerts (kind, fingerprint, tenant_id, message) VALUES ('latency_high', 'p95', %s, 'm')"
    late = "How late is it? {} "
    with ConsoleProcess(settings, objective_latency_p95_ms="0.5", latency_p95_ms_max="1e9") as console:
        text = console.page()
        assert late.format("~ watch") in text_of(text)
        assert "Over the objective of 0.5 ms; an alert only if it lasts." in text_of(text)
        assert "pipeline-platform objectives" in text
        assert "For whom? ~ watch acme Their events take longer than the objective allows" in text_of(text)
        conn.execute(alert, (None,))
        text = text_of(console.page_that("Over the objective of 0.5 ms, and it lasts."))
        assert late.format("! look here") in text and "For whom? ! look here acme" in text
    with ConsoleProcess(settings, objective_latency_p95_ms="1e9", latency_p95_ms_max="0.5") as console:
        text = text_of(console.page())
        assert late.format("~ watch") in text and "is met again; its alert is still open." in text
        conn.execute("UPDATE control.alerts SET resolved_at = now()")
        text = text_of(console.page_that("The objective of 1e+09 ms is met."))
        assert late.format("✓ fine") in text and "For whom? ✓ fine Nobody" in text
        conn.execute(alert, (acme,))
        text = text_of(console.page_that("allows: an alert is open."))
        assert late.format("✓ fine") in text and "For whom? ! look here acme" in text


def test_running_replays_and_alerts_are_shown(console: ConsoleProcess, conn: Conn) -> None:
    conn.execute(
        "INSERT INTO replay.replays (window_start, window_end, planned_events, actor, reason, state, step_began_at)"
        " SELECT now() - interval '1 hour', now(), 5000, 'me', 'new transform', state::replay.state, now()"
        " FROM unnest(ARRAY['diffing', 'committed']) AS state"
    )
    conn.execute(
        "INSERT INTO replay.chunks (replay_id, chunk, hour, is_sweep, first_batch, last_batch, events, is_done)"
        " SELECT 1, n, date_trunc('hour', now(), 'UTC'), false, n, n, 1250, n < 4 FROM generate_series(1, 4) AS n"
    )
    conn.execute("INSERT INTO control.alerts (kind, fingerprint, message) VALUES ('circuit_open', 'x', 'it is open')")
    text = text_of(console.page())
    assert "Replays under way 1" in text
    assert "new transform 75.00% of 5,000 events" in text
    assert "committed" not in text.partition("Replays under way")[2]
    assert "Open alerts 1 Open alerts: 1, critical: 1. critical The circuit is open (x) it is open" in text


def test_an_alert_says_what_to_do(settings: Settings, conn: Conn) -> None:
    acme = add_tenant(conn, "big corp").tenant_id
    conn.execute(
        "INSERT INTO control.alerts (kind, fingerprint, tenant_id, message, occurrences, opened_at) VALUES"
        " ('delivery_rate_low', 'rate', %(acme)s, '9 of 10 events were delivered', 1234, '2026-11-01 12:34:56Z'),"
        " ('lag_high', 'live', NULL, 'the oldest waits', 2, '2026-11-01 13:00:00Z')",
        {"acme": acme},
    )
    listed = run_command(settings, "alerts", "list", "--json").answer["alerts"]
    with ConsoleProcess(settings) as console:
        page = console.page()
        first, second = map(text_of, page.partition('class="alerts"')[2].partition("</ul>")[0].split("</li>")[:2])
        assert first.partition("critical: 1. ")[2] == (
            "critical Too few events are delivered (rate) 9 of 10 events were delivered Who big corp"
            " Since 2026-11-01 12:34 UTC How many 1,234 Next pipeline-platform funnel --tenant 'big corp'"
            " Runbook docs/runbooks/delivery_rate_low.md"
        )
        assert second.startswith("warning Events wait too long (live) the oldest waits Who the platform")
        for alert in listed:
            assert f"{alert['next']} Runbook {alert['runbook']}" in text_of(page)
        own = text_of(console.page("/?tenant=big+corp"))
        assert "Open alerts 1 " in own and "Events wait too long" not in own
        conn.execute(
            "INSERT INTO control.alerts (kind, fingerprint, message)"
            " SELECT 'lag_high', n, 'm' FROM generate_series(1, 11) AS n"
        )
        assert "Open alerts 13 " in text_of(console.page_that("3 more: pipeline-platform alerts list"))
    with ConsoleProcess(settings, alert_runbooks_url="https://example.com/runbooks/") as console:
        assert '<a href="https://example.com/runbooks/delivery_rate_low.md" rel="noreferrer">' in console.page()
    with ConsoleProcess(settings, alert_runbooks_url="javascript:alert()") as console:
        assert 'href="javascript:' not in console.page()


def test_a_hostile_tenant_is_text(console: ConsoleProcess, settings: Settings, conn: Conn) -> None:
    tenant_id = add_tenant(conn, _HOSTILE).tenant_id
    accept_ids(conn, tenant_id, new_ids(3))
    drain(settings)
    plant_dead_letters(conn, tenant_id, 1, f"{_HOSTILE} broke it")
    conn.execute(
        "INSERT INTO control.alerts (kind, fingerprint, tenant_id, message) VALUES ('k', 'f', %s, %s)",
        (tenant_id, _HOSTILE),
    )
    with console.messages() as messages:
        sent = "".join(next(messages).values())
    page = console.page()
    for html in (page, sent):
        assert "<script>alert" not in html
        assert html.count("&lt;script&gt;alert") >= 4
        assert _HOSTILE in text_of(html)
    link = page.partition('<th scope="row"><a href="')[2].partition('"')[0]
    own = console.page(link)
    assert stages_of(own)["delivered"] == 3
    assert "<script>alert" not in own
    assert stages_of(console.page(f"/tenants/{quote(_HOSTILE)}"))["delivered"] == 3


def test_a_tenant_that_is_not_there(console: ConsoleProcess) -> None:
    answer = httpx.get(f"{console.url}/?tenant=<b>nobody")
    assert answer.status_code == 404
    assert "There is no tenant" in answer.text
    assert "<b>nobody" not in answer.text
    for name in ("%00", "a%00b", "%ff%fe", "%ed%a0%80", "x" * 5_000, "%0d%0aSet-Cookie:%20a=b", "..%2f..%2fetc"):
        for path in ("/?tenant=", "/tenants/", "/events?tenant="):
            answer = httpx.get(console.url + path + name, timeout=20)
            assert answer.status_code == 404, (path, name)
            assert "set-cookie" not in answer.headers
    assert "Live" in text_of(console.page())
    assert httpx.get(f"{console.url}/nothing").status_code == 404
    assert httpx.post(console.url).status_code == 405


def test_everything_comes_from_here_and_from_the_installed_package(console: ConsoleProcess) -> None:
    page = httpx.get(console.url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    address = next(part for part in page.text.split('"') if part.startswith("/static/plotly.min.js"))
    script = httpx.get(console.url + address)
    assert script.content == (Path(plotly.__file__).parent / "package_data/plotly.min.js").read_bytes()
    assert "immutable" in script.headers["cache-control"]
    with httpx.stream("GET", console.url + address) as answer:
        assert len(gzip.decompress(b"".join(answer.iter_raw()))) == len(script.content)
    assert httpx.get(f"{console.url}/static/../app.py").status_code == 404


def test_it_serves_the_platforms_metrics(console: ConsoleProcess) -> None:
    answer = httpx.get(f"{console.url}/metrics")
    assert answer.status_code == 200
    assert "\npipeline_up 1.0\n" in answer.text


def test_it_cannot_write(settings: Settings) -> None:
    with open_connection(settings) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        conn.execute("UPDATE control.tenants SET plan = 'x'")


def test_without_a_token_only_this_machine_is_answered(console: ConsoleProcess, settings: Settings) -> None:
    assert httpx.get(console.url, headers={"Host": f"localhost:{console.port}"}).status_code == 200
    rebound = httpx.get(console.url, headers={"Host": "evil.example"})
    assert rebound.status_code == 421
    assert "PIPELINE_CONSOLE_TOKEN" in rebound.text
    refused = ConsoleProcess(settings, console_host="0.0.0.0")
    refused.start()
    assert refused.exit_code() == 2
    assert "set PIPELINE_CONSOLE_TOKEN" in refused.log.read_text()


def test_who_has_the_token_may_look(settings: Settings, conn: Conn) -> None:
    add_tenant(conn, "acme")
    with ConsoleProcess(settings, console_host="0.0.0.0", console_token="open sesame") as console:
        for path in ("/", "/events", "/tenants/acme", "/?token=open", "/?token=", "/?token=%C3%A9"):
            answer = httpx.get(console.url + path, headers={"Host": "console.example.com"})
            assert answer.status_code == 401, path
            assert "acme" not in answer.text
        assert httpx.get(f"{console.url}/", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert httpx.get(f"{console.url}/", cookies={"console": "open sesame"}).status_code == 401
        assert httpx.get(f"{console.url}/healthz").text == "ok\n"
        with httpx.Client(base_url=console.url) as browser:
            welcome = browser.get("/", params={"token": "open sesame", "tenant": "acme"})
            assert (welcome.status_code, welcome.headers["location"]) == (303, "/?tenant=acme")
            cookie = welcome.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert "sesame" not in cookie
            assert browser.get("/?tenant=acme").status_code == 200
        assert "acme" in console.page("/tenants/acme", Authorization="Bearer open sesame")


def test_many_look_at_once_and_one_connection_reads_for_all(console: ConsoleProcess, conn: Conn) -> None:
    acme = add_tenant(conn, "acme").tenant_id
    for round_ in (1, 2):
        with ExitStack() as stack:
            viewers = [stack.enter_context(console.messages()) for _ in range(50)]
            for messages in viewers:
                next(messages)
            accept_ids(conn, acme, new_ids(3))
            for messages in viewers:
                next(
                    message
                    for message in messages
                    if stages_of(message.get("funnel", "")).get("accepted") == 3 * round_
                )
            who = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pipeline-platform console'"
            assert conn.execute(f"{who} AND datname = current_database()").fetchone() == (1,)
        # All 50 have left without a word.


def test_there_is_an_end_to_how_many_may_look(console: ConsoleProcess) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(limits=httpx.Limits(max_connections=None), timeout=20))
        for _ in range(200):
            assert stack.enter_context(client.stream("GET", f"{console.url}/events")).status_code == 200
        wait_for("the next to be refused", lambda: client.get(f"{console.url}/events").status_code == 503)
        assert client.get(console.url).status_code == 200


def test_it_says_that_the_database_is_away_and_goes_on_when_it_is_back(home: Path, redis_url: str) -> None:
    server: OwnServer = own_postgres(home / "postgres-of-its-own")
    try:
        settings = Settings(home=home, database_url=fresh_database(server, "console"), redis_url=redis_url)
        with ConsoleProcess(settings) as console, console.messages() as messages:

            def status(saying: str) -> str:
                return next(text for message in messages if saying in (text := text_of(message.get("status", ""))))

            status("Live")
            server.stop()
            assert "these numbers are of" in status("PostgreSQL does not answer since")
            assert "PostgreSQL does not answer" in text_of(console.page())
            server.start()
            status("Live")
            with psycopg.connect(settings.database_url) as conn:
                who = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pipeline-platform console'"
                ((backend,),) = conn.execute(who).fetchall()
            os.kill(backend, signal.SIGSTOP)
            status("PostgreSQL does not answer since")
            os.kill(backend, signal.SIGCONT)
            status("Live")
    finally:
        server.stop()


def test_it_starts_without_a_database_and_shows_numbers_once_there_is_one(home: Path, redis_url: str) -> None:
    server = own_postgres(home / "postgres-of-its-own")
    try:
        settings = Settings(home=home, database_url=fresh_database(server, "console"), redis_url=redis_url)
        server.stop()
        with ConsoleProcess(settings) as console:
            assert "so there are no numbers yet" in text_of(console.page())
            server.start()
            with console.messages() as messages:
                assert next(message for message in messages if "funnel" in message)
            with psycopg.connect(settings.database_url) as conn:
                assert funnel_of(conn).balanced
    finally:
        server.stop()


def test_a_daily_report_is_served_in_a_sandbox_and_nothing_else_is(console: ConsoleProcess, settings: Settings) -> None:
    reports = settings.home / "reports"
    reports.mkdir()
    (reports / "2026-01-31.html").write_text("<script>document.title = 'a day'</script>")
    (reports / "notes.html").write_text("not a report")
    (settings.home / "secret.html").write_text("not a report")
    found = httpx.get(f"{console.url}/reports/2026-01-31.html", trust_env=False)
    assert found.status_code == 200 and "a day" in found.text
    assert found.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    for name in ("notes.html", "2026-02-01.html", "..%2Fsecret.html", "%2e%2e/secret.html"):
        assert httpx.get(f"{console.url}/reports/{name}", trust_env=False).status_code == 404, name
