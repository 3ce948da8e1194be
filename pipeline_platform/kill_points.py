"""Named places where a test may kill this process: the hardest crash at the worst moment.

``PIPELINE_KILL_POINT=gateway.after_commit`` ends the process by SIGKILL when it first gets there,
``gateway.after_commit:3`` when it gets there for the third time. Without the variable, `reach` does nothing.
"""

import os
import signal

_NAME, _, _TIMES = os.environ.get("PIPELINE_KILL_POINT", "").partition(":")
_left = int(_TIMES or 1)


def reach(name: str) -> None:
    """Say that the process got to the place `name`."""
    global _left  # noqa: PLW0603 -- one process, one countdown
    if name != _NAME:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
