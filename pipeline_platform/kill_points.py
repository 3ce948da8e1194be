"""Named places where a test may kill this process, or raise an unexpected error.

``PIPELINE_KILL_POINT=gateway.after_commit`` ends the process by SIGKILL at the first arrival there,
``gateway.after_commit:3`` at the third. ``gateway.keys:raise`` raises an error at each arrival. Without the variable,
`reach` does nothing.
"""

import os
import signal

_NAME, _, _HOW = os.environ.get("PIPELINE_KILL_POINT", "").partition(":")
_RAISES = _HOW == "raise"
_left = 1 if _RAISES else int(_HOW or 1)


class InjectedError(Exception):
    """An unexpected error, raised on purpose."""


def reach(name: str) -> None:
    """Report that the process reached the place `name`."""
    global _left  # noqa: PLW0603 -- one process, one countdown
    if name != _NAME:
        return
    if _RAISES:
        raise InjectedError(name)
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
