"""A page of another site, shown by a browser on the same machine, cannot give orders to Dagster."""

import http.server
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline_platform_tests.support.browser import Browser
from pipeline_platform_tests.support.dagster_web import LAUNCH, DagsterWeb
from pipeline_platform_tests.support.waiting import wait_for

_PAGE = """<!doctype html><title>evil</title><iframe id="frame" name="frame"></iframe><script>
const target = TARGET, launch = LAUNCH, done = [];
const body = JSON.stringify({query: launch});
const simple = {method: "POST", mode: "no-cors", body};
const settle = (name, promise) => promise.then(() => done.push(name), () => done.push(name));
settle("text", fetch(target + "/graphql", {...simple, headers: {"Content-Type": "text/plain"}}));
settle("report", fetch(target + "/report_asset_materialization/forged", simple));
settle("json", fetch(target + "/graphql", {method: "POST", headers: {"Content-Type": "application/json"}, body}));
settle("get", fetch(target + "/graphql?query=" + encodeURIComponent(launch), {mode: "no-cors"}));
const image = new Image();
image.onload = image.onerror = () => done.push("image");
image.src = target + "/graphql?query=" + encodeURIComponent(launch);
const socket = new WebSocket(target.replace("http", "ws") + "/graphql", "graphql-ws");
socket.onopen = () => { document.title = "socket open"; };
socket.onclose = () => done.push("socket");
const form = document.createElement("form");
Object.assign(form, {method: "POST", enctype: "text/plain", target: "frame", action: target + "/graphql"});
const field = document.createElement("input");
field.name = body.slice(0, -1) + ', "x": "';
field.value = '"}';
form.append(field);
document.body.append(form);
document.getElementById("frame").onload = () => done.push("form");
form.submit();
</script>"""
_FROM_ITS_OWN_PAGE = """
const asked = {method: "POST", headers: {"Content-Type": "application/json"}};
fetch("/graphql", {...asked, body: JSON.stringify({query: arguments[0]})}).then(got => { window.launched = got.ok; });
const socket = new WebSocket(location.origin.replace("http", "ws") + "/graphql", "graphql-ws");
socket.onopen = () => { window.connected = true; };
"""
_TRIED = {"text", "report", "json", "get", "image", "socket", "form"}


@contextmanager
def _site(page: str) -> Iterator[int]:
    """Serves `page` at every address; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def web() -> Iterator[DagsterWeb]:
    with tempfile.TemporaryDirectory() as home, DagsterWeb(Path(home)) as running:
        yield running


def test_nothing_that_a_foreign_page_tries_reaches_dagster(browser: Browser, web: DagsterWeb) -> None:
    page = _PAGE.replace("TARGET", repr(web.url)).replace("LAUNCH", repr(LAUNCH))
    with _site(page) as port:
        # Another port is another origin, though a browser counts both as the same site.
        browser.open(f"http://localhost:{port}/")
        wait_for("every request to end", lambda: set(browser.run("return done")) >= _TRIED, 60)
        assert browser.run("return document.title") == "evil"
    assert web.runs() == 0
    assert web.forged() == 0


def test_the_ui_shows_a_job_and_its_own_page_launches_it(browser: Browser, web: DagsterWeb) -> None:
    """The control of the other: the same requests, from Dagster's own page."""
    browser.open(f"{web.url}/locations/probe/jobs/harmless")
    wait_for("the job to be shown", lambda: "No description provided" in browser.text(), 120)
    browser.run(_FROM_ITS_OWN_PAGE, LAUNCH)
    wait_for("the launch and the socket", lambda: browser.run("return window.launched && window.connected"), 60)
    assert web.runs() == 1
