"""Unchanged SDKs in a real browser, on a page of another origin than the gateway: what they are given arrives."""

import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.browser import Browser
from pipeline_platform_tests.support.gateway import Gateway, GatewayProcess
from pipeline_platform_tests.support.waiting import wait_for

_PACKAGES = Path(__file__).parent / "sdks"
_SEGMENT = "node_modules/@segment/analytics-next/dist/umd/index.js"
_RUDDERSTACK = "node_modules/@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js"
# As docs/how-to/point-a-browser-at-it.md has it.
_LOAD_SEGMENT = """
window.analytics = AnalyticsNext.AnalyticsBrowser.load(
  {{ writeKey: "{key}", cdnURL: "{url}" }},
  {{ integrations: {{ "Segment.io": {{ apiHost: "{host}/v1", protocol: "http", deliveryStrategy: {strategy} }} }} }},
);
"""
_LOAD_RUDDERSTACK = """
window.analytics = new rudderanalytics.RudderAnalytics();
window.analytics.load("{key}", "{url}", {{ configUrl: "{url}", useBeacon: {beacon} }});
"""
WAYS = {
    "segment, one by one": (_SEGMENT, _LOAD_SEGMENT, {"strategy": "{ config: { keepalive: true } }"}),
    "segment, in batches": (_SEGMENT, _LOAD_SEGMENT, {"strategy": '{ strategy: "batching" }'}),
    "rudderstack": (_RUDDERSTACK, _LOAD_RUDDERSTACK, {"beacon": "false"}),
    "rudderstack, as beacons": (_RUDDERSTACK, _LOAD_RUDDERSTACK, {"beacon": "true"}),
}
# When an SDK holds what it was given: nothing is promised of a call that is still on its way through its plugins.
GIVEN = {
    "segment, one by one": "until(() => window.fetched === 5)",
    "segment, in batches": "Promise.all(calls)",
    "rudderstack, as beacons": "Promise.resolve()",
}
_CALLS = """
window.fetched = 0;
const fetch = window.fetch;
window.fetch = (...request) => { window.fetched++; return fetch(...request); };
const until = async (condition) => { while (!condition()) await new Promise((done) => setTimeout(done)); };
const calls = [];
for (let n = 0; n < 5; n++) calls.push(analytics.track("Leaving", { n }));
"""
_READY = "return new Promise((done) => { analytics.ready(() => done(true)); })"


class Site:
    """A shop's web site on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        handler = partial(_Quiet, directory=str(directory))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        (directory / "favicon.ico").touch()
        (directory / "left.html").write_text("<title>left</title>")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def page(self, way: str, gateway: Gateway) -> str:
        """The address of a page with this SDK, pointed at the gateway."""
        script, load, options = WAYS[way]
        url = gateway.process.url
        filled = load.format(key=gateway.key, url=url, host=url.removeprefix("http://"), **options)
        page = f'<title>shop</title><script src="/{script}"></script><script>{filled}</script>'
        (self.directory / "shop.html").write_text(page)
        return f"{self.url}/shop.html"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    npm = shutil.which("npm")
    if npm is None:
        said = "no npm: the SDKs for browsers are NOT tested; apt-get install npm"
        warnings.warn(said, stacklevel=1)
        pytest.skip(said)
    directory = tmp_path_factory.mktemp("site")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_PACKAGES / name, directory)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=directory, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site = Site(directory)
    yield site
    site.close()


@pytest.fixture
def gateway(settings: Settings, conn: psycopg.Connection[Any]) -> Iterator[Gateway]:
    with GatewayProcess(settings) as process:
        gateway = Gateway(process.start(), conn)
        yield gateway
        gateway.client.close()


def stored(gateway: Gateway) -> list[str]:
    """The types of the stored events."""
    return sorted(kind for (kind,) in gateway.conn.execute("SELECT type::text FROM queue.events").fetchall())


def wait_for_types(gateway: Gateway, *types: str) -> None:
    wait_for(f"events of types {types}", lambda: stored(gateway) == sorted(types))
    assert gateway.count("SELECT count(DISTINCT event_id) FROM queue.events") == len(types)
    assert gateway.quarantined == 0


@pytest.mark.parametrize("way", WAYS)
def test_page_track_and_identify_arrive(gateway: Gateway, site: Site, browser: Browser, way: str) -> None:
    browser.requests()
    browser.complaints()
    browser.open(site.page(way, gateway))
    assert browser.run(_READY)
    browser.run(
        """
        analytics.page("Docs", "Home");
        analytics.identify("user-1", { email: "zoë@example.com" });
        analytics.track("Order Placed", { total: 12.5 });
        """
    )
    if way == "rudderstack, as beacons":
        # Sent when there are ten, or the page is left.
        browser.open(f"{site.url}/left.html")
    wait_for_types(gateway, "p", "i", "t")
    asked = {urlsplit(url).netloc for url in browser.requests() if url.startswith("http")}
    assert asked == {urlsplit(site.url).netloc, urlsplit(gateway.process.url).netloc}
    assert [said for said in browser.complaints() if gateway.process.url in said] == []


@pytest.mark.parametrize("way", GIVEN)
def test_leaving_the_page_loses_nothing(gateway: Gateway, site: Site, browser: Browser, way: str) -> None:
    browser.open(site.page(way, gateway))
    assert browser.run(_READY)
    browser.run(f'{_CALLS} {GIVEN[way]}.then(() => {{ location.href = "/left.html"; }});')
    wait_for_types(gateway, *["t"] * 5)


@pytest.mark.parametrize("way", GIVEN)
def test_closing_the_tab_loses_nothing(gateway: Gateway, site: Site, browser: Browser, way: str) -> None:
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.open(site.page(way, gateway))
    assert browser.run(_READY)
    assert browser.run(f"{_CALLS} return {GIVEN[way]}.then(() => true);")
    browser.driver.close()
    browser.driver.switch_to.window(first)
    wait_for_types(gateway, *["t"] * 5)
