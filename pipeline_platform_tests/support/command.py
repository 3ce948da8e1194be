"""`pipeline-platform`, run as an operator runs it: a process of its own, found by its environment."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.environments import environment_of


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.out, f"exit code {self.code}: {self.err}"
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """Standard error without its line breaks."""
        return " ".join(self.err.split())


def run_command(settings: Settings, *words: str, stdin: bytes = b"", **more: str) -> Done:
    """Run it to its end, on the servers of `settings`; `more`: settings by their lower-case names."""
    environment = environment_of(settings, **more)
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline_platform.cli import main; main()", *words],
        check=False,
        env=environment,
        input=stdin,
        capture_output=True,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
