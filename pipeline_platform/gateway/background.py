"""The gateway's background tasks. None of them may end by itself: if one does, the process has to end.

The task's error is logged, `GET /readyz` names the task, and the process ends with a failure, so that its supervisor
starts another. The current requests are answered first.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_LOG = logging.getLogger(__name__)


class Background:
    """The running tasks. `failed` is called when one has ended."""

    def __init__(self, failed: Callable[[], None]) -> None:
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []
        self.ended: list[str] = []

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._has_ended)
        self._tasks.append(task)

    async def stop(self) -> None:
        """End all tasks. This is no failure."""
        for task in self._tasks:
            task.remove_done_callback(self._has_ended)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        name = task.get_name()
        error = None if task.cancelled() else task.exception()
        _LOG.critical("the background task %s ended, so this process ends: start it again", name, exc_info=error)
        self.ended.append(name)
        self._failed()
