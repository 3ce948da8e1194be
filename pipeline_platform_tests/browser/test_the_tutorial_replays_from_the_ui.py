"""Promise: who follows the tutorial, command by command and click by click, replays from Dagster's UI and undoes it."""

import contextlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform_tests.support.browser import Browser
from pipeline_platform_tests.support.homes import temporary_home
from pipeline_platform_tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

_PAGE = (Path(__file__).parents[2] / "docs/tutorial-replay-in-dagster.md").read_text()
_DEADLINE_S = 300.0

# What the page tells its reader to do, in its order: blocks, and in the numbered lines these verbs.
_STEP = re.compile(
    r"""^[ ]*```(?P<language>\w+)\n(?P<block>.*?)^[ ]*```$
      | [Oo]pen\s<(?P<open>[^>]+)>
      | [Cc]lick\s\*\*(?P<click>[^*]+)\*\*
      | reload[ ]it[ ]until[ ]you[ ]see\s+\*\*(?P<reload>[^*]+)\*\*
      | see\s\*\*(?P<see>[^*]+)\*\*
      | [Tt]ype\s+`(?P<type>[^`]+)`""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_NUMBERED = re.compile(r"^\d+\. .*?(?=^\d+\. |^\S|\Z)", re.MULTILINE | re.DOTALL)


def _steps() -> Iterator[tuple[str, str]]:
    for found in _STEP.finditer(_PAGE):
        if found["language"]:
            yield found["language"], textwrap.dedent(found["block"])
        else:
            yield next((name, " ".join(text.split())) for name, text in found.groupdict().items() if text)


def test_every_numbered_line_of_the_page_says_what_to_do() -> None:
    lines = _NUMBERED.findall(_PAGE)
    assert len(lines) > 10
    for line in lines:
        named = re.findall(r"\*\*([^*]+)\*\*", line)
        done = [text for found in _STEP.finditer(line) for text in found.group("click", "reload", "see") if text]
        assert named == done, f"names what it does not say to click or to see: {line}"
        assert _STEP.search(line), f"says nothing to do: {line}"


class Reader:
    """Types the commands into a shell and uses the browser, as the page says. A method a kind of step."""

    def __init__(self, browser: WebDriver, here: Path, environment: dict[str, str]) -> None:
        self._browser, self._here, self._environment = browser, here, environment
        self._said = ""
        self._yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"

    def sh(self, commands: str) -> None:
        if commands.strip() == "make up":
            commands = "pipeline-platform up --detach --workers 1 --gateway-port 0 --console-port 0 --dagster-port 0"
        done = subprocess.run(
            ["bash", "-ec", commands], cwd=self._here, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{commands}: {done.stdout}{done.stderr}"
        self._said = done.stdout

    def text(self, expected: str) -> None:
        assert self._said == expected

    def open(self, address: str) -> None:
        endpoints = read_endpoints(self._here / ".pipeline")
        assert address == "http://127.0.0.1:3000" and endpoints and endpoints.dagster
        self._browser.get(endpoints.dagster)

    def click(self, text: str) -> None:
        """The first that has this text and can be clicked: a dialog covers what is under it, a button may wait."""
        enabled = f'//*[normalize-space(text())="{text}"][not(ancestor-or-self::button[@disabled])]'

        def clicked() -> bool:
            for found in self._browser.find_elements(By.XPATH, enabled):
                try:
                    found.click()
                except WebDriverException:
                    continue
                return True
            return False

        self._until(f"{text} to click", clicked)

    def see(self, text: str) -> None:
        self._until(f"{text} to be seen", lambda: self._shows(text))

    def reload(self, text: str) -> None:
        def seen() -> bool:
            self._browser.refresh()
            # Long enough for the page to load on a busy machine, short enough for a reader.
            with contextlib.suppress(TimeoutException):
                return WebDriverWait(self._browser, 20).until(lambda _: self._shows(text))
            return False

        self._until(f"{text} to be seen", seen)

    def _shows(self, text: str) -> bool:
        try:
            return text in self._browser.find_element(By.TAG_NAME, "body").text
        except (NoSuchElementException, StaleElementReferenceException):
            return False

    def type(self, text: str) -> None:
        def typed() -> bool:
            for field in self._browser.find_elements(By.CSS_SELECTOR, "[role=dialog] input[type=text]"):
                field.send_keys(text.replace("YESTERDAY", self._yesterday), Keys.ENTER)
                return True
            return False

        self._until("a field of the dialog", typed)

    def yaml(self, config: str) -> None:
        """Replace all that the editor holds, as one does who pastes."""

        def pasted() -> bool:
            editors = self._browser.find_elements(By.CSS_SELECTOR, ".CodeMirror textarea")
            if not editors:
                return False
            self._browser.execute_script("arguments[0].focus()", editors[-1])
            editors[-1].send_keys(Keys.CONTROL, "a")
            self._browser.execute_cdp_cmd("Input.insertText", {"text": config})
            return True

        self._until("an editor", pasted)

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        def in_newest_tab() -> bool:
            # A launched run shows itself in a tab of its own.
            self._browser.switch_to.window(self._browser.window_handles[-1])
            return condition()

        try:
            wait_for(what, in_newest_tab, _DEADLINE_S)
        except AssertionError as error:
            shown = self._browser.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"{error}; the page shows: {shown[:3000]}") from None


def test_every_command_and_click_of_the_tutorial_in_its_order(browser: Browser) -> None:
    steps = list(_steps())
    assert {name for name, _ in steps} == {"sh", "text", "open", "click", "reload", "see", "type", "yaml"}
    with temporary_home() as here:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")} | {
            "PIPELINE_HOME": str(here / ".pipeline"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        reader = Reader(browser.driver, here, environment)
        try:
            for name, what in steps:
                getattr(reader, name)(what)
        finally:
            reader.sh("pipeline-platform down")
