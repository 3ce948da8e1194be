"""Ends what a killed supervisor leaves behind: `python -m pipeline_platform.local.supervisor.watchman MARK`.

Its standard input is a pipe whose other end only the supervisor holds, so it reads the end of it the moment the
supervisor is gone, however that happened. After an orderly stop there is nothing left to end.
"""

import sys

from pipeline_platform.local.supervisor.leftovers import end_marked

_GRACE_S = 10.0


def main() -> None:
    """Wait for the end of standard input, then for that of every marked process."""
    mark = sys.argv[1]
    sys.stdin.buffer.read()
    end_marked(mark, _GRACE_S)


if __name__ == "__main__":
    main()
