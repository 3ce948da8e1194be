"""Promise: what the asset, group, lineage and job pages launch over All, Latest or Missing ends as it says."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform_tests.support.browser import Browser
from pipeline_platform_tests.support.homes import temporary_home

pytestmark = pytest.mark.timeout(900)

_DEADLINE_S = 600.0
_GROUP = "/locations/__repository__@pipeline_platform/asset-groups"
_JOB = "/locations/pipeline_platform/jobs"

# Rows of docs/reference/dagster-launches.md, over hours that are delivered, empty and, where offered, under way.
LAUNCHES = [
    ("/assets/reconciled_hours", "All"),
    ("/assets/dropped_events", "Latest"),
    ("/assets/replay_diffs", "Missing"),
    (f"{_GROUP}/migration", "All"),
    (f"{_GROUP}/events", "Missing"),
    (f"{_GROUP}/replay", "Latest"),
    ("/asset-groups", "Latest"),
    (f"{_JOB}/process_hours_job", "All"),
    (f"{_JOB}/replay_job", "All"),
]
_NOT_LAUNCHED_FROM_PAGES = ("/assets/replayed_hours", "/assets/recovered_events")

_LAUNCHED = """{
  partitionBackfillsOrError {... on PartitionBackfills {results {id status numPartitions}}}
  runsOrError {... on Runs {results {runId status tags {key value}}}}
}"""
_BUTTON = """
const all = [...document.querySelectorAll(arguments[0])]
  .filter(button => !button.disabled && button.innerText.trim().match(arguments[1]));
if (!all.length) return false;
all[all.length - 1].click();
return true;
"""


class Pages:
    """Dagster's pages in a browser, and what they launched as the server tells it."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url = browser, url

    def launch(self, page: str, choice: str) -> None:
        """Materialize from this page, over what the choice selects."""
        known = self.launched().keys()
        self._browser.open(self._url + page, width=1600, height=1000)
        self._click("button", r"^Materialize( all)?( \(\d+\))?…$")
        self._until(
            "the dialog for hours",
            lambda: self._pressed("[role=dialog] button", "^Confirm$") or self._shows("Partition selection"),
        )
        self._until("the dialog for hours", lambda: self._shows("Partition selection"))
        self._click("[role=dialog] button", f"^{choice}$")
        self._click("[role=dialog] button", r"^Launch (backfill|\d+ runs?)$")
        self._until(f"a launch from {page}", lambda: bool(self.launched().keys() - known))

    def can_materialize(self, page: str) -> bool:
        """Whether the page has a button for it that can be pressed."""
        self._browser.open(self._url + page)
        self._until("the page", lambda: self._shows("Lineage"))
        script = (
            "return [...document.querySelectorAll('button')].some(b => /^Materialize/.test(b.innerText) && !b.disabled)"
        )
        return bool(self._browser.run(script))

    def launched(self) -> dict[str, str]:
        """The state of each backfill, and of each run that a page launched alone."""
        found = httpx.post(f"{self._url}/graphql", json={"query": _LAUNCHED}, timeout=60).json()["data"]
        states = {each["id"]: each["status"] for each in found["partitionBackfillsOrError"]["results"]}
        for run in found["runsOrError"]["results"]:
            tags = {tag["key"] for tag in run["tags"]}
            if not tags & {"dagster/backfill", "dagster/sensor_name", "dagster/schedule_name"}:
                states[run["runId"]] = run["status"]
        return states

    def _click(self, selector: str, text: str) -> None:
        self._until(f"{text} to click", lambda: self._pressed(selector, text))

    def _pressed(self, selector: str, text: str) -> bool:
        return bool(self._browser.run(_BUTTON, selector, text))

    def _shows(self, text: str) -> bool:
        return text in self._browser.text()

    def _until(self, what: str, condition: Any) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"no {what}; the page shows: {self._browser.text()[:2000]}"
            time.sleep(0.5)


def _events() -> Iterator[str]:
    """Three delivered hours, of which the last is two hours ago; all others are empty."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(600):
        at = now - timedelta(hours=5) + timedelta(seconds=18 * number)
        yield json.dumps({"tenant": "acme", "type": "page", "messageId": f"m-{number}", "anonymousId": "v",
                          "name": "Home", "timestamp": at.isoformat()})  # fmt: skip


@contextmanager
def _platform(here: Path) -> Iterator[str]:
    """A whole platform with these events; the address of its Dagster."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")} | {
        "PIPELINE_HOME": str(here / ".pipeline"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*arguments: str) -> None:
        done = subprocess.run(
            ["pipeline-platform", *arguments], cwd=here, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    (here / "events.ndjson").write_text("\n".join(_events()))
    try:
        run("up", "--detach", "--workers", "1", "--gateway-port", "0", "--console-port", "0", "--dagster-port", "0")
        run("import", "events.ndjson", "--tenant-field", "tenant", "--received-at", "timestamp")
        endpoints = read_endpoints(here / ".pipeline")
        assert endpoints and endpoints.dagster
        yield endpoints.dagster
    finally:
        run("down")


def walk(pages: Pages) -> dict[str, str]:
    """Launch all, then wait for all; their states."""
    for page, choice in LAUNCHES:
        pages.launch(page, choice)
    deadline = time.monotonic() + _DEADLINE_S
    while {"REQUESTED", "COMPLETING", "QUEUED", "STARTING", "STARTED", "NOT_STARTED"} & set(pages.launched().values()):
        assert time.monotonic() < deadline, pages.launched()
        time.sleep(2)
    return pages.launched()


def test_every_launch_ends_as_it_says(browser: Browser) -> None:
    with temporary_home() as here, _platform(here) as url:
        pages = Pages(browser, url)
        found = walk(pages)
        assert len(found) == len(LAUNCHES)
        assert set(found.values()) <= {"COMPLETED_SUCCESS", "SUCCESS"}, found
        assert not any(pages.can_materialize(page) for page in _NOT_LAUNCHED_FROM_PAGES)
