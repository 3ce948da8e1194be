"""Claimed work ids, one file per worker, outside the transaction so that a crash can be attributed to them.

It is a file, because the worker's own pool reads it on the same machine, and every claim writes it: in 10 µs, instead
of a round trip and a row in PostgreSQL. It need not survive a crash of the machine: no event caused that.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class HeldLetter(NamedTuple):
    """A dead letter that is tried again. attempts: those before this one, to distinguish this one from later ones."""

    tenant_id: int
    dead_letter_id: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Held:
    """The content of a worker's last note."""

    work_ids: Sequence[int] = ()
    letters: Sequence[HeldLetter] = ()


class ClaimNote:
    """The note of one worker. Every write replaces the previous note."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def write(self, work_ids: Sequence[int], letters: Sequence[HeldLetter] = ()) -> None:
        """Note what is held now. It is one write, so a reader finds this note or the previous one complete."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        words = [str(work_id) for work_id in work_ids] + [":".join(map(str, letter)) for letter in letters]
        os.pwrite(self._file, f"{' '.join(words)}\n".encode(), 0)


def read_claim_note(path: Path) -> Held:
    """The content of a worker's last note, empty if there is none. Bytes after the first line are older."""
    if not path.exists():
        return Held()
    words = path.read_bytes().partition(b"\n")[0].split()
    numbers = [tuple(map(int, word.split(b":"))) for word in words]
    return Held(
        [each[0] for each in numbers if len(each) == 1], [HeldLetter(*each) for each in numbers if len(each) > 1]
    )
