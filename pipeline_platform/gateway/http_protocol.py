"""uvicorn's HTTP protocol, with the bounds that it lacks: connections, the time and size of a request's head.

A client that sends its head slowly, or nothing at all, is cut off; the body has limits of its own (bodies.py).
"""

import asyncio
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_BYTES_MAX = 64 << 10
_BUSY_RETRY_S = 5


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `bound` makes the class for given limits."""

    connections_max: ClassVar[int] = 4_096
    head_timeout_s: ClassVar[float] = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refuse what is too much, and wait for the first head."""
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            self._refuse("429 Too Many Requests", "busy", "too many connections", f"retry-after: {_BUSY_RETRY_S}\r\n")
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which knows no limit of its own."""
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response(f"the head of a request may have {_HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the same shape as everything else."""
        self._refuse("400 Bad Request", "invalid_http", msg)

    def _refuse(self, status: str, code: str, message: str, more: str = "") -> None:
        body = msgspec.json.encode({"success": False, "code": code, "message": message})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def bound(connections_max: int, head_timeout_s: float) -> type[BoundedProtocol]:
    """The protocol with these limits, for `uvicorn.Config(http=…)`."""
    limits = {"connections_max": connections_max, "head_timeout_s": head_timeout_s}
    return type("BoundedProtocol", (BoundedProtocol,), limits)
