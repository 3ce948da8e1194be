"""Ends what a killed supervisor leaves behind: `python -m pipeline_platform.local.supervisor.watchman TAG`.

Its standard input is a pipe whose other end only the supervisor holds. It reads end-of-file as soon as the supervisor
has ended for any reason. After an orderly stop no process remains to be ended.
"""

import sys

from pipeline_platform.local.supervisor.leftovers import end_tagged

_GRACE_S = 10.0


def main() -> None:
    """Wait for the end of standard input, then end every tagged process."""
    tag = sys.argv[1]
    sys.stdin.buffer.read()
    end_tagged(tag, _GRACE_S)


if __name__ == "__main__":
    main()
