"""Deadlines of all connections, watched by one timer: a request costs no timer of its own.

A connection whose phase is over is closed; one that is still there in the next phase (its client does not read the
rest of an answer) is aborted. While most places are taken, an idle connection has no longer than a head.
"""

import asyncio
from typing import Protocol

_LOOK_S_MAX = 1.0
_CROWDED = 0.75


class Connection(Protocol):
    """What has a deadline. is_idle: it waits for a request of which nothing has arrived."""

    deadline: float
    is_idle: bool

    def end_phase(self) -> None:
        """The deadline has passed."""
        ...


class Deadlines:
    """The lengths of the phases, and the open connections.

    head_s: a head, the rest of a body that nobody reads, the last bytes of an answer; request_s: a whole request with
    its answer; idle_s: between two requests.
    """

    def __init__(self, head_s: float, request_s: float, idle_s: float, connections_max: int) -> None:
        self.head_s = head_s
        self.request_s = request_s
        self.idle_s = idle_s
        self._crowd = _CROWDED * connections_max
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        if self._timer is None:
            self._look_later()

    def remove(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(_LOOK_S_MAX, self.head_s / 4), self._look)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        # Idle for longer than a head may take: the deadline of these is nearer than this.
        crowded_until = now + self.idle_s - self.head_s if len(self._open) > self._crowd else now
        for connection in [*self._open]:
            if connection.deadline <= (crowded_until if connection.is_idle else now):
                connection.end_phase()
        self._timer = None
        if self._open:
            self._look_later()
