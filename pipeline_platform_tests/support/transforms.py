"""Transforms that fail. A pool of support/pool.py takes one by its name: see `Platform.start_workers`."""

import os
import signal

from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.worker.transform import Row, transform


def bad_deploy(event: QueuedEvent) -> Row:
    """Fails for every event."""
    raise ValueError("a bad deploy")


def deadly(event: QueuedEvent) -> Row:
    """The marked event kills the process that decodes it, as a bug in a C library would."""
    if b"deadly" in event.payload:
        os.kill(os.getpid(), signal.SIGKILL)
    return transform(event)
