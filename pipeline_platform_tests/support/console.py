"""The console as a process of its own, and what its page says, read as text."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.environments import environment_of
from pipeline_platform_tests.support.waiting import wait_for

_ROOT = Path(__file__).parents[2]
_DEADLINE_S = 60.0


class ConsoleProcess:
    """The process; leaving the context ends it. `more`: settings by their lower-case names."""

    def __init__(self, settings: Settings, **more: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = settings.home / "logs" / f"console-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment_of(settings, **more)

    def __enter__(self) -> Self:
        self.start()
        wait_for("the console to serve", self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            print(f"--- the end of the console's log\n{log_tail(self.log, 40)}")

    def start(self) -> None:
        command = [sys.executable, "-m", "pipeline_platform.watch.console", "--port", str(self.port)]
        self.process = spawn(command, log=self.log, cwd=_ROOT, env=self._environment)

    def stop(self) -> None:
        assert self.process is not None
        stop(self.process, signal.SIGTERM, 20)

    def exit_code(self) -> int:
        assert self.process is not None
        return self.process.wait(20)

    def page(self, path: str = "/", **headers: str) -> str:
        answer = httpx.get(f"{self.url}{path}", headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.text

    def page_that(self, says: str, path: str = "/") -> str:
        """The page once its text has `says` in it: it may be a moment old."""
        found = wait_for(f"the page to say {says!r}", lambda: says in text_of(self.page(path)) and self.page(path))
        assert isinstance(found, str)
        return found

    @contextmanager
    def messages(self, path: str = "/events") -> Iterator[Iterator[dict[str, str]]]:
        """What the page is sent: the changed sections' HTML by name, message by message."""
        with httpx.stream("GET", f"{self.url}{path}", timeout=20) as answer:
            assert answer.status_code == 200
            yield _messages(answer)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the console ended: {log_tail(self.log)}"
        try:
            return httpx.get(f"{self.url}/healthz").is_success
        except httpx.TransportError:
            return False


def _messages(answer: httpx.Response) -> Iterator[dict[str, str]]:
    """The stream never ends, and pings keep it awake: a test that waits for what does not come must."""
    deadline = time.monotonic() + _DEADLINE_S
    for line in answer.iter_lines():
        assert time.monotonic() < deadline, f"waited {_DEADLINE_S:.0f} s for a message"
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def text_of(html: str) -> str:
    """What is read of some HTML, in one line."""
    parser = _Text()
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(parser.parts)).strip()


def stages_of(html: str) -> dict[str, int]:
    """The events at each stage, of both pipelines."""
    found = re.findall(r'data-stage="(\w+)".*?class="n events"><span>([\d,]+)</span>', html, re.DOTALL)
    return {stage: int(events.replace(",", "")) for stage, events in found}


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        assert tag != "script" or dict(attrs).get("src"), "a script of somebody else's"
