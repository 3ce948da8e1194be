"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.02


def wait_for(what: str, condition: Callable[[], T | None], deadline_s: float = 30.0) -> T:
    """The first value of `condition` that is true. AssertionError, saying what was waited for, after `deadline_s`."""
    deadline = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {deadline_s:.0f} s for {what}: still {found!r}"
        time.sleep(_PAUSE_S)
