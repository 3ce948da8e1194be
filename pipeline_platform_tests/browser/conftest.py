"""One browser for all tests of a session; without Chromium they are skipped, and say so."""

import warnings
from collections.abc import Iterator

import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.browser import Browser, chromium, missing_programs
from pipeline_platform_tests.support.console import ConsoleProcess


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if missing := missing_programs():
        said = f"no {' and no '.join(missing)}: the pages are NOT tested; apt-get install chromium chromium-driver"
        warnings.warn(said, stacklevel=1)
        pytest.skip(said)
    with chromium() as driver:
        yield Browser(driver)


@pytest.fixture
def console(settings: Settings) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(settings) as process:
        yield process
