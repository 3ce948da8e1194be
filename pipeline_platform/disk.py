"""The room on the disk under the home, for everything that judges or shows it."""

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Room:
    """A disk. place: where it was looked at; free, total: bytes."""

    place: Path
    free: int
    total: int


def room_under(home: Path) -> Room:
    """The room under `home`, or under its nearest parent that exists. OSError if that cannot be looked at."""
    path = home.absolute()
    for place in (path, *path.parents):
        try:
            usage = shutil.disk_usage(place)
        except (FileNotFoundError, NotADirectoryError):
            # Not made yet, or removed meanwhile.
            continue
        return Room(place, usage.free, usage.total)
    raise FileNotFoundError(f"{path} has no parent that exists")
