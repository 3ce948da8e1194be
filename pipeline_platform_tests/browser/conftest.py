"""A real Chromium without a window, driven by selenium: Debian's packages chromium and chromium-driver."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

# As root, without a GPU, and with nothing that asks the network by itself.
_ARGUMENTS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars "
    "--window-size=1440,1000 --lang=en-US"
)


@contextmanager
def chromium() -> Iterator[WebDriver]:
    """One browser with a profile of its own, which is gone afterwards. Its console is kept for `get_log("browser")`."""
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for argument in (*_ARGUMENTS.split(), f"--user-data-dir={profile}"):
            options.add_argument(argument)
        # Named, or selenium looks for a browser of its own in the network.
        options.binary_location = program("chromium")
        driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def program(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"NOT TESTED, no {name} here: apt-get install chromium chromium-driver")


@pytest.fixture(scope="module")
def chromium_of_module() -> Iterator[WebDriver]:
    """Starting one takes a second or two, so the tests of a file share it."""
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(chromium_of_module: WebDriver, request: pytest.FixtureRequest) -> Iterator[WebDriver]:
    """Chromium on an empty page. Where the test fails, a picture of what it showed is kept and named."""
    chromium_of_module.get("about:blank")
    failed_before = request.session.testsfailed
    yield chromium_of_module
    if request.session.testsfailed > failed_before:
        _keep_picture(chromium_of_module, request.node.name)


def _keep_picture(driver: WebDriver, name: str) -> None:
    picture = Path(tempfile.gettempdir()) / f"{name}.png"
    driver.save_screenshot(str(picture))
    print(f"what the browser showed: {picture}")
