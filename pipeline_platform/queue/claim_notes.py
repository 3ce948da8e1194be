"""What each worker of a pool holds, in a file a worker: what is left of a claim when its transaction is not.

A file, since it is read by the worker's own pool on the same machine, and a note costs every claim: 10 µs here, a
round trip and a row in PostgreSQL. It need not survive the machine: then nobody died of an event.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class HeldLetter(NamedTuple):
    """A dead letter that is tried again, and how many attempts it had before: later ones are not this attempt's."""

    tenant_id: int
    dead_letter_id: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker's last note names."""

    work_ids: Sequence[int] = ()
    letters: Sequence[HeldLetter] = ()


class ClaimNote:
    """The note of one worker. Every write replaces the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def write(self, work_ids: Sequence[int], letters: Sequence[HeldLetter] = ()) -> None:
        """Note what is held now. One write, so a reader finds this note or the last one, whole."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        words = [str(work_id) for work_id in work_ids] + [":".join(map(str, letter)) for letter in letters]
        os.pwrite(self._file, f"{' '.join(words)}\n".encode(), 0)


def read_claim_note(path: Path) -> Held:
    """What a worker's last note names; nothing where it never wrote one. Bytes behind the first line are older."""
    if not path.exists():
        return Held()
    words = path.read_bytes().partition(b"\n")[0].split()
    numbers = [tuple(map(int, word.split(b":"))) for word in words]
    return Held(
        [each[0] for each in numbers if len(each) == 1], [HeldLetter(*each) for each in numbers if len(each) > 1]
    )
