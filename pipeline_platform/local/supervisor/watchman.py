"""Ends what a killed supervisor leaves behind: `python -m pipeline_platform.local.supervisor.watchman MARK`.

Its standard input is a pipe whose other end only the supervisor holds. It reads end-of-file as soon as the supervisor
has ended for any reason. After an orderly stop no process remains to be ended.
"""

import sys

from pipeline_platform.local.supervisor.leftovers import end_marked

_GRACE_S = 10.0


def main() -> None:
    """Wait for the end of standard input, then end every marked process."""
    mark = sys.argv[1]
    sys.stdin.buffer.read()
    end_marked(mark, _GRACE_S)


if __name__ == "__main__":
    main()
