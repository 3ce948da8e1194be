"""What each worker of a pool holds, in a file a worker: what is left of a claim when its transaction is not.

A file, since it is read by the worker's own pool on the same machine, and a note costs every claim: 10 µs here, a
round trip and a row in PostgreSQL. It need not survive the machine: then nobody died of an event.
"""

import os
from collections.abc import Sequence
from pathlib import Path


class ClaimNote:
    """The note of one worker. Every write replaces the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def write(self, work_ids: Sequence[int]) -> None:
        """Note what is held now. One write, so a reader finds this note or the last one, whole."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._file, f"{' '.join(map(str, work_ids))}\n".encode(), 0)


def read_claim_note(path: Path) -> list[int]:
    """The work ids of a worker's last note; none where it never wrote one. Bytes behind the first line are older."""
    if not path.exists():
        return []
    return [int(word) for word in path.read_bytes().partition(b"\n")[0].split()]
