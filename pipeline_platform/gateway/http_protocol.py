"""uvicorn's HTTP protocol with the limits that it lacks: connections, bytes outside of bodies, time in each phase.

A connection is always in one phase. Each phase has a deadline that arriving bytes never extend (deadlines.py). The
phases: receive a head, receive the rest of an ignored body, answer a request until the response is read, wait idle
for the next request. A connection that is late is closed, whatever was sent.

An unsupported Upgrade is ignored, as in RFC 9110 (7.8): the request is read as HTTP/1.1, with its body.
"""

from math import inf
from typing import Any, ClassVar

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline_platform.gateway.deadlines import Deadlines

_OUTSIDE_BYTES_MAX = 64 << 10
_HEADERS_MAX = 128
_PIPELINED_MAX = 16
_BUSY_RETRY_S = 5
_TOO_MUCH_OUTSIDE = f"a head, trailers or chunk extensions of more than {_OUTSIDE_BYTES_MAX} bytes"
# RFC 9110, 6.5.1: fields that define how to read a message belong in its head.
_NEVER_IN_TRAILERS = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})


class _RefusedError(Exception):
    """Raised in a callback of the parser. The parser then stops."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `bound` makes the class for given limits."""

    connections_max: ClassVar[int]
    deadlines: ClassVar[Deadlines]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # When the present phase ends, in the loop's time.
        self.deadline = inf
        self.is_idle = False
        # Bytes since the last piece of a body, end of a head or end of a message.
        self._outside_bytes = 0
        self._is_in_head = False
        self._is_in_message = False
        # The last response. After it nothing more is read.
        self._refusal = b""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first head. Refuse the connection if there are too many."""
        super().connection_made(transport)
        self.deadlines.add(self)
        self._wait(self.deadlines.head_s)
        if len(self.connections) > self.connections_max:
            more = f"retry-after: {_BUSY_RETRY_S}\r\n"
            self._refuse("429 Too Many Requests", "busy", "too many connections", more)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching its deadline."""
        self.deadlines.remove(self)
        super().connection_lost(exc)

    def end_phase(self) -> None:
        """The deadline has passed: close the connection, or abort it if it is already closing."""
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()
            self._wait(self.deadlines.head_s)

    def data_received(self, data: bytes) -> None:
        """Feed the parser and apply the limits that it lacks."""
        if self._refusal:
            return
        self._outside_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            # The context of the parser's error is the error that a callback raised.
            because = error.__context__
            self.send_400_response(str(because) if isinstance(because, _RefusedError) else f"this is no HTTP: {error}")
        else:
            if self._outside_bytes > _OUTSIDE_BYTES_MAX:
                self.send_400_response(_TOO_MUCH_OUTSIDE)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # This parser reads the next bytes as another protocol. A new parser gets the head without its Upgrade.
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            # As in uvicorn: bytes after a request with Connection: close do not invalidate that request.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)
            self._feed(data[upgrade.args[0] :])

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        if len(self.pipeline) >= _PIPELINED_MAX:
            raise _RefusedError(f"more than {_PIPELINED_MAX} requests of a connection wait for their answers")
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        if self.is_idle or not self.cycle:
            self._wait(self.deadlines.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are ignored, because the request is already being processed when they arrive."""
        name = name.lower()
        if not self._is_in_head:
            if name in _NEVER_IN_TRAILERS:
                raise _RefusedError(f"{name.decode('latin-1')} in the trailers of a request")
            return
        if len(self.headers) >= _HEADERS_MAX:
            raise _RefusedError(f"a request may have {_HEADERS_MAX} headers")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _RefusedError("this is no proxy: CONNECT")
            return  # called again for the head without the Upgrade
        if self._outside_bytes > _OUTSIDE_BYTES_MAX and self._head_size() > _OUTSIDE_BYTES_MAX:
            raise _RefusedError(_TOO_MUCH_OUTSIDE)
        self._is_in_head = False
        self._outside_bytes = 0
        super().on_headers_complete()
        if self.expect_100_continue:
            # After an early response the client may omit the body. The next bytes would be ambiguous.
            self.cycle.keep_alive = False
        if not self.pipeline:
            self._wait(self.deadlines.request_s)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """A piece of a body. bodies.py limits its size."""
        self._outside_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self.parser.should_upgrade():
            return
        self._outside_bytes = 0
        self._is_in_message = False
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait(self.deadlines.idle_s, is_idle=True)

    def on_response_complete(self) -> None:
        """The response is written: start the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._wait(self.deadlines.head_s)
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._wait(self.deadlines.request_s)
            self._start_asgi_task(cycle, app)
        elif self._refusal:
            self._end_with_refusal()
        elif self._is_in_message:
            # The rest of an ignored body, or the head of the next request.
            self._wait(self.deadlines.head_s)
        else:
            self._wait(self.deadlines.idle_s, is_idle=True)

    def send_400_response(self, msg: str) -> None:
        """Refuse invalid HTTP with a response in the usual format."""
        self._refuse("400 Bad Request", "invalid_http", msg)

    def _refuse(self, status: str, code: str, message: str, more: str = "") -> None:
        body = msgspec.json.encode({"success": False, "code": code, "message": message})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
        self._refusal = head.encode() + b"connection: close\r\n\r\n" + body
        if not self._owes_answers():
            self._end_with_refusal()

    def _owes_answers(self) -> bool:
        """Whether complete requests are to be answered first. A request with a broken body does not count."""
        if self.pipeline:
            return True
        cycle = self.cycle
        return bool(cycle) and not cycle.response_complete and (cycle.response_started or not cycle.more_body)

    def _end_with_refusal(self) -> None:
        is_answered = self._is_in_message and not self._is_in_head and self.cycle.response_complete
        if not is_answered:
            # The client would take a second response as the response to its next request.
            self.transport.write(self._refusal)
        self.transport.close()
        self._wait(self.deadlines.head_s)

    def _wait(self, seconds: float, is_idle: bool = False) -> None:
        self.deadline = self.loop.time() + seconds
        self.is_idle = is_idle


def bound(connections_max: int, deadlines: Deadlines) -> type[BoundedProtocol]:
    """The protocol with these limits, for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (BoundedProtocol,), {"connections_max": connections_max, "deadlines": deadlines})
