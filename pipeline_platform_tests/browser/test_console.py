"""The console in a real browser, with events flowing: live without a reload, usable by everybody, kept to itself."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from selenium.webdriver.common.keys import Keys

from pipeline_platform import schema
from pipeline_platform.local.services import ensure_database
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.browser import Browser
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.console import ConsoleProcess
from pipeline_platform_tests.support.gateway import event
from pipeline_platform_tests.support.homes import temporary_home
from pipeline_platform_tests.support.migration import open_epoch
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.servers import make_url
from pipeline_platform_tests.support.simulation import LegacyPipeline
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_HOSTILE = "<script>window.hurt = true</script><img src=x onerror='window.hurt = true'>"
_CHECKS = (Path(__file__).parent / "checks.js").read_text()
# Plotly brings the style of maps along, which the page's policy rightly refuses and nobody misses.
_OF_MAPS = "plotly.min.js"


@pytest.fixture
def platform(settings: Settings) -> Iterator[Platform]:
    with Platform(settings) as running:
        running.start_gateway()
        running.start_workers()
        yield running


@pytest.fixture(scope="module")
def showcase(servers: dict[str, str], admin: Conn) -> Iterator[tuple[ConsoleProcess, Settings]]:
    """A console over a little of everything that the page can show: 43 events of 14 tenants."""
    name = f"showcase_{os.getpid()}"
    ensure_database(servers["database_url"], name)
    url = make_url(servers["database_url"], name)
    schema.migrate(url)
    with temporary_home() as home:
        settings = Settings(home=home, database_url=url, redis_url=servers["redis_url"])
        with psycopg.connect(url, autocommit=True) as conn:
            _fill(conn, settings)
        with ConsoleProcess(settings) as console:
            yield console, settings
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _fill(conn: Conn, settings: Settings) -> None:
    open_epoch(conn, "shadow")
    for name in ("acme", _HOSTILE, *(f"tenant-{number}" for number in range(12))):
        tenant_id = add_tenant(conn, name).tenant_id
        accept_ids(conn, tenant_id, [uuid.uuid4() for _ in range(3)])
    drain(settings)
    accept_ids(conn, 1, [uuid.uuid4()])
    conn.execute(
        "INSERT INTO legacy.stage_counts SELECT 1, date_trunc('hour', now(), 'UTC'), stage, 42, 35, 7"
        " FROM unnest(ARRAY['mirror', 'gateway', 'queue', 'lookup', 'write']) AS stage"
    )
    conn.execute(
        "INSERT INTO queue.dead_letters (tenant_id, event_id, type, lane, batch_id, event_index, batch_received_at,"
        " received_at, payload, failed_in, error_class, error, fingerprint, state, attempts)"
        " SELECT 2, gen_random_uuid(), 't', 'live', 1, n, now(), now(), '', 'load', 'E', %s, 'f' || n, 'exhausted', 5"
        " FROM generate_series(1, 3) AS n",
        (f"{_HOSTILE} is no number",),
    )
    alert = "INSERT INTO control.alerts (kind, fingerprint, tenant_id, message) VALUES (%s, %s, 2, %s)"
    conn.execute(alert, ("delivery_rate_low", "rate", _HOSTILE))
    conn.execute(alert, ("k", "f", "word " * 60))
    conn.execute(
        "INSERT INTO replay.replays (window_start, window_end, planned_events, actor, reason, state, step_began_at)"
        " VALUES (now() - interval '1 hour', now(), 5000, 'me', 'new transform', 'diffing', now())"
    )


def live(browser: Browser) -> None:
    """Until the open page was sent something."""
    time = "return document.querySelector('.status time')?.dateTime"
    first = wait_for("a time", lambda: browser.run(time))
    wait_for("another time", lambda: browser.run(time) != first)


def drawn(browser: Browser) -> None:
    wait_for("the charts", lambda: browser.run("return document.querySelectorAll('.plot .main-svg').length") >= 4)


def test_numbers_change_without_a_reload_and_are_the_funnels(
    browser: Browser, console: ConsoleProcess, platform: Platform, settings: Settings, conn: Conn
) -> None:
    key = add_tenant(conn, "acme").write_key
    browser.open(console.url)
    assert browser.stages()["received"] == 0
    browser.run("window.same = true; window.funnel = document.querySelector('[data-stage=delivered] .events span')")
    client = Client(platform.port, key)
    for sent in (100, 200, 300):
        client.send([event() for _ in range(100)])
        wait_for(f"{sent} events on the page", lambda sent=sent: browser.stages()["delivered"] == sent)
    client.send([event(), {"type": "no such type", "messageId": "m"}])
    platform.await_drained(conn)
    wait_for("the rejected event", lambda: "1 rejected" in browser.text(".funnel"))
    wait_for("the last event", lambda: browser.stages()["delivered"] == 301)
    counted = run_command(settings, "funnel", "--since", "1h", "--json").answer
    assert browser.stages() == {stage["stage"]: stage["arrived"] for stage in counted["stages"]}
    assert browser.run("return window.same && window.funnel.isConnected"), "the page was loaded, or drawn, anew"
    wait_for("a rate", lambda: "acme" in browser.text(".tenants") and "ms" in browser.text(".verdict"))


def test_a_loss_in_the_old_pipeline_shows_at_its_stage(
    browser: Browser, console: ConsoleProcess, platform: Platform, settings: Settings, conn: Conn
) -> None:
    key = add_tenant(conn, "acme").write_key
    open_epoch(conn, "shadow")
    with LegacyPipeline(settings, capacity_per_s=40, mirror=True):
        browser.open(console.url)
        client = Client(platform.port, key)

        def lost() -> list[tuple[str, int]]:
            found = conn.execute("SELECT stage, sum(failed)::bigint FROM legacy.stage_counts GROUP BY stage")
            return [(stage, failed) for stage, failed in found if failed]

        def sending() -> bool:
            client.send([event() for _ in range(6)])
            return any(stage == "lookup" for stage, _ in lost())

        wait_for("its look-ups to time out", sending, 60)

        def shown(stage: str) -> str:
            return browser.text(f".theirs [data-stage={stage}] .ends")

        wait_for("the loss on the page", lambda: "failed" in shown("lookup") and "time-out" in shown("lookup"))
    wait_for("all losses", lambda: all(f"{failed:,} failed" in shown(stage) for stage, failed in lost()))
    quiet = {"mirror", "gateway", "queue", "lookup", "write"} - {stage for stage, _ in lost()}
    assert not any("failed" in shown(stage) for stage in quiet)
    assert "in the old pipeline" in browser.text(".verdict")
    assert "failed" not in browser.text(".ours")


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, False), (390, True)])
def test_everybody_can_read_it(
    browser: Browser, showcase: tuple[ConsoleProcess, Settings], width: int, dark: bool
) -> None:
    browser.open(showcase[0].url, width=width, height=844, dark=dark)
    live(browser)
    drawn(browser)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    browser.run(_CHECKS)
    assert browser.run("return checks.contrast()") == []
    assert browser.run("return checks.structure()") == []
    background = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(background) < 60) == dark
    assert browser.run("return document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    small = "return [...document.querySelectorAll('input, button')].filter((each) => each.offsetHeight < 44).length"
    assert width > 390 or browser.run(small) == 0, "too small for a finger"


def test_a_keyboard_is_enough(browser: Browser, showcase: tuple[ConsoleProcess, Settings]) -> None:
    console, settings = showcase
    browser.open(console.url)
    live(browser)
    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.run("return document.activeElement.getBoundingClientRect().top") >= 0
    browser.press(Keys.ENTER)
    wait_for("the main part", lambda: browser.run("return document.activeElement.id") == "main")
    wait_for("the charts' tables", lambda: browser.run("return document.querySelectorAll('summary').length") == 2)
    reached: set[str] = set()
    for _ in range(60):
        browser.press(Keys.TAB)
        reached.add(browser.run("return document.activeElement.closest('[data-section], header')?.className || ''"))
        style = "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"
        assert browser.run(style) == "solid3px" or browser.run("return document.activeElement === document.body")
    assert {"verdict", "alerts", "charts", "tenants", "dead_letters", "replays"} <= reached
    browser.run("document.querySelectorAll('.tenants a')[1].focus()")
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        accept_ids(conn, 1, [uuid.uuid4() for _ in range(5)])
        drain(settings)
    wait_for("the new events", lambda: browser.stages()["received"] == 48)
    assert browser.run("return document.activeElement.closest('.tenants') !== null"), "an update took the focus"
    browser.run("document.querySelector('#tenant').focus()")
    browser.press("acme", Keys.ENTER)
    wait_for("the tenant's page", lambda: "acme" in browser.text("h1"))
    assert browser.stages()["received"] == 9


def test_nothing_leaves_the_origin_and_a_hostile_name_is_text(
    browser: Browser, showcase: tuple[ConsoleProcess, Settings]
) -> None:
    url = showcase[0].url
    browser.requests(), browser.complaints()
    browser.open(url)
    live(browser)
    drawn(browser)
    assert _HOSTILE in browser.text(".tenants")
    link = "return [...document.querySelectorAll('.tenants a')].find((each) => each.innerText === arguments[0]).href"
    browser.driver.get(browser.run(link, _HOSTILE))
    live(browser)
    assert _HOSTILE in browser.text("h1")
    assert _HOSTILE in browser.text(".dead_letters")
    assert not browser.run("return window.hurt")
    asked = [address for address in browser.requests() if not address.startswith("data:")]
    assert len(asked) > 5
    assert [address for address in asked if not address.startswith(f"{url}/")] == []
    assert [said for said in browser.complaints() if _OF_MAPS not in said] == []


def test_the_page_says_that_the_console_is_away_and_lives_on(
    browser: Browser, showcase: tuple[ConsoleProcess, Settings]
) -> None:
    console, _ = showcase
    browser.open(console.url)
    live(browser)
    assert not browser.find("#unreachable").is_displayed()
    browser.run("window.same = true")
    console.stop()
    wait_for("the banner", browser.find("#unreachable").is_displayed)
    assert browser.stages()["received"] >= 43
    console.start()
    wait_for("the banner to go", lambda: not browser.find("#unreachable").is_displayed(), 60)
    live(browser)
    assert browser.run("return window.same")


def test_a_token_is_asked_for_once(browser: Browser, settings: Settings, conn: Conn) -> None:
    add_tenant(conn, "acme")
    with ConsoleProcess(settings, console_token="open sesame") as console:
        browser.open(f"{console.url}/?tenant=acme")
        assert "Enter the token" in browser.text("main")
        browser.find("#token").send_keys("wrong", Keys.ENTER)
        wait_for("a refusal", lambda: "not the token" in browser.text("main"))
        browser.find("#token").send_keys("open sesame", Keys.ENTER)
        wait_for("the page", lambda: "All tenants" in browser.text("h1"))
        assert "token" not in browser.driver.current_url
        assert browser.run("return document.cookie") == ""
        live(browser)
