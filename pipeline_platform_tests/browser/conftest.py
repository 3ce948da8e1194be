"""One browser for all tests of a session; without Chromium they are skipped, and say so."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.browser import Browser, chromium, missing_programs
from pipeline_platform_tests.support.console import ConsoleProcess


@pytest.fixture(scope="session")
def driver() -> Iterator[WebDriver]:
    if missing := missing_programs():
        said = f"no {' and no '.join(missing)}: the pages are NOT tested; apt-get install chromium chromium-driver"
        warnings.warn(said, stacklevel=1)
        pytest.skip(said)
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(driver: WebDriver, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Its one window, empty. Where the test fails, a picture of what it showed is kept and named."""
    browser = Browser(driver)
    browser.reset()
    failed_before = request.session.testsfailed
    yield browser
    if request.session.testsfailed > failed_before:
        picture = Path(tempfile.gettempdir()) / f"{request.node.name}.png"
        driver.save_screenshot(str(picture))
        print(f"what the browser showed: {picture}")


@pytest.fixture
def console(settings: Settings) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(settings) as process:
        yield process
