"""Places in the code where a test can have the process killed, to prove that nothing is lost there.

`PIPELINE_KILL_POINT=worker.before_commit` kills (SIGKILL) the process that reaches that point;
`PIPELINE_KILL_POINT=worker.before_commit:3` does so the third time.
"""

import os
import signal

_NAME, _, _NTH = os.environ.get("PIPELINE_KILL_POINT", "").partition(":")
_reached = 0


def reach(name: str) -> None:
    """Die here if the environment says so."""
    global _reached  # noqa: PLW0603 -- counts over the process's life, by design
    if name != _NAME:
        return
    _reached += 1
    if _reached >= int(_NTH or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
