"""Controls a sender process: starts it, reads its progress and its result. The sender ends with this process."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pipeline_platform.errors import ServiceError
from pipeline_platform.lab.demo.report import Span
from pipeline_platform.local.services.process import tied_to_us


@dataclass(frozen=True, slots=True)
class Played:
    """The result of an act: events, answers by status (or by connection error), its stretches."""

    sent: int
    acknowledged: int
    statuses: dict[str, int]
    late_ms_max: float
    stretches: list[Span]


class Playing:
    """A running sender. Leaving the context ends it, even if it is not done."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.acknowledged = 0
        self.sent = 0
        self._last: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline_platform.lab.demo.sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=tied_to_us(),  # noqa: PLW1509 -- loaded before the fork
            # Ctrl-C in the terminal reaches only this process, which ends the sender.
            start_new_session=True,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order))
        self._process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join()

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> Played:
        """Wait until everything is sent. ServiceError if the sender failed; it has printed why."""
        self._reader.join()
        code = self._process.wait()
        if code != 0 or "stretches" not in self._last:
            raise ServiceError(f"the demo's sender ended with {code} before its traffic was played")
        spans = [Span(name, begin, end) for name, (begin, end) in self._last["stretches"].items()]
        last = self._last
        return Played(last["sent"], last["acknowledged"], last["statuses"], last["late_ms_max"], spans)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._last = json.loads(line)
                self.sent, self.acknowledged = self._last["sent"], self._last["acknowledged"]
