"""Takes the pictures of the documentation from a running Dagster that has processed some hours.

    .venv/bin/python docs/screenshots.py [http://127.0.0.1:3000]
    .venv/bin/python docs/screenshots.py .pipeline/demo-report.html
    .venv/bin/python docs/screenshots.py console [http://127.0.0.1:8081]

Writes docs/images/dagster-*.png; of a demo's report docs/images/demo-report.png; of a console
docs/images/console-{light,dark,phone}.png. Needs Debian's chromium and chromium-driver. Launches nothing: follow
docs/tutorial-replay-in-dagster.md up to its diff first, or there is nothing to take pictures of; let a console watch a
migration for some minutes, as of `up --with-legacy`.
"""

import sys
from pathlib import Path

import httpx
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from pipeline_platform_tests.support.browser import chromium as _browser

_IMAGES = Path(__file__).parent / "images"
_WIDTH, _SCALE = 1440, 1.25
_WAIT_S = 120
_JOBS = "locations/pipeline_platform/jobs"
_NEWEST_BACKFILL = "{partitionBackfillsOrError(limit: 1) {... on PartitionBackfills {results {id status}}}}"
_NEWEST_HOUR = """{assetNodeOrError(assetKey: {path: ["ASSET"]}) {
  ... on AssetNode {assetMaterializations(limit: 1) {partition}}
}}"""


def main(url: str) -> None:
    hour, replayed, backfill = _newest(url, "delivered_events"), _newest(url, "replay_diffs"), _newest_backfill(url)
    with _browser() as browser:
        _take(browser, "dagster-lineage", f"{url}/asset-groups", "retention", 660)
        _take(browser, "dagster-assets", f"{url}/locations/pipeline_platform/asset-groups/events", "Passed", 600)
        page = f"{url}/assets/delivered_events?view=partitions&partition={hour}&status=MATERIALIZED"
        _take(browser, "dagster-hour", page, "delivery_rate", 1_250)
        page = f"{url}/assets/delivered_events?view=checks&checkDetail=account_holds"
        _take(browser, "dagster-check", page, "received = accepted + rejected", 760)
        _take(browser, "dagster-backfill", f"{url}/runs/b/{backfill}", "100% completed", 460)
        page = f"{url}/assets/replay_diffs?view=partitions&partition={replayed}&status=MATERIALIZED"
        _take(browser, "dagster-replay-diff", page, "would change", 1_380)
        _take(browser, "dagster-launchpad", f"{url}/{_JOBS}/commit_replay_job/playground", "take_newer", 640)
        _take(browser, "dagster-replay-job", f"{url}/{_JOBS}/replay_job", "Processes hours again", 640)


def report(page: Path) -> None:
    with _browser() as browser:
        _take(browser, "demo-report", page.resolve().as_uri(), "What was promised", 1_220, width=1_100, scale=1)


def console(url: str) -> None:
    drawn = "As a table"  # under a chart that has points
    with _browser() as browser:
        _take(browser, "console-light", url, drawn, 1_420, scale=1)
        _scheme(browser, "dark")
        _take(browser, "console-dark", url, drawn, 1_420, scale=1)
        _take(browser, "console-phone", url, drawn, 844, width=390, scale=2)


def _scheme(browser: WebDriver, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _take(
    browser: WebDriver, name: str, page: str, shows: str, height: int, width: int = _WIDTH, scale: float = _SCALE
) -> None:
    """Open a page, wait until it shows a text, and keep the picture."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)
    wait = WebDriverWait(browser, _WAIT_S)
    wait.until(lambda found: shows in found.find_element(By.TAG_NAME, "body").text)
    for passing in ("Checking config", "fetching statuses"):
        wait.until_not(lambda found, text=passing: text in found.find_element(By.TAG_NAME, "body").text)
    if "/jobs/" not in page:  # The page of a job has one that turns out of sight.
        wait.until_not(lambda found: found.find_elements(By.CSS_SELECTOR, "[class*=Spinner]"))
    _IMAGES.mkdir(exist_ok=True)
    browser.save_screenshot(str(_IMAGES / f"{name}.png"))
    print(_IMAGES / f"{name}.png")


def _newest(url: str, asset: str) -> str:
    """The partition of its newest materialization."""
    found = _ask(url, _NEWEST_HOUR.replace("ASSET", asset))["assetNodeOrError"].get("assetMaterializations")
    if not found:
        sys.exit(f"no hour of {asset} yet: materialize one in Dagster first")
    return found[0]["partition"]


def _newest_backfill(url: str) -> str:
    found = _ask(url, _NEWEST_BACKFILL)["partitionBackfillsOrError"].get("results")
    if not found or found[0]["status"] != "COMPLETED_SUCCESS":
        sys.exit("the newest backfill has not succeeded: launch one over a few hours, and wait for it")
    return found[0]["id"]


def _ask(url: str, query: str) -> dict:
    return httpx.post(f"{url}/graphql", json={"query": query}, timeout=60).raise_for_status().json()["data"]


if __name__ == "__main__":
    source = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000"
    if source == "console":
        console(sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8081")
    elif source.endswith(".html"):
        report(Path(source))
    else:
        main(source)
