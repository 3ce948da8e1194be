"""One timer watches the deadlines of all connections, so a request needs no timer of its own.

A connection whose phase is over is closed. If it is still open after the next phase (its client does not read the
rest of a response), it is aborted. While most connections are in use, an idle one gets no more time than a head.
"""

import asyncio
from typing import Protocol

_LOOK_S_MAX = 1.0
_CROWDED = 0.75


class Connection(Protocol):
    """A connection with a deadline. is_idle: no byte of its next request has arrived."""

    deadline: float
    is_idle: bool

    def end_phase(self) -> None:
        """The deadline has passed."""
        ...


class Deadlines:
    """The lengths of the phases, and the open connections.

    head_s: a head, the rest of an ignored body, the last bytes of a response; request_s: a whole request with its
    response; idle_s: between two requests.
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
        # An idle connection with an earlier deadline has been idle for longer than head_s.
        crowded_until = now + self.idle_s - self.head_s if len(self._open) > self._crowd else now
        for connection in [*self._open]:
            if connection.deadline <= (crowded_until if connection.is_idle else now):
                connection.end_phase()
        self._timer = None
        if self._open:
            self._look_later()
