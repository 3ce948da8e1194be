"""Which processes are alive: by where they work."""

from pathlib import Path

import psutil


def processes_in(home: Path) -> list[psutil.Process]:
    """Every living process that works somewhere below `home`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(home.resolve()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended, or is another user's
    return found
