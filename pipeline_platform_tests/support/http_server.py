"""A server with the gateway's HTTP protocol and an application that notes what it was asked, for tests of bytes."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any, NamedTuple, Self

import uvicorn

from pipeline_platform.gateway.deadlines import Deadlines
from pipeline_platform.gateway.http_protocol import bound
from pipeline_platform_tests.support.waiting import wait_for

LARGE = b"x" * (32 << 20)


class Asked(NamedTuple):
    """A request as the application saw it."""

    method: str
    path: str
    body: bytes
    headers: list[tuple[bytes, bytes]]


class HttpServer:
    """Serves within the context. `/early` is answered 401 before its body is read, `/large` with 32 MiB."""

    def __init__(
        self, head_s: float = 5, request_s: float = 30, idle_s: float = 75, connections_max: int = 100
    ) -> None:
        self.asked: list[Asked] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        deadlines = Deadlines(head_s, request_s, idle_s, connections_max)
        protocol = bound(connections_max, deadlines)
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            loop="uvloop",
            http=protocol,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            timeout_graceful_shutdown=5,
        )
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        # Not `run`: signals are for the main thread.
        with asyncio.Runner(loop_factory=self.server.config.get_loop_factory()) as runner:
            runner.run(self.server.serve(sockets=[self._listener]))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for("the server to serve", lambda: self.server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self._thread.join()

    @property
    def connections(self) -> int:
        """Connections that hold a place."""
        return len(self.server.server_state.connections)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(self, connection: socket.socket, *segments: bytes) -> None:
        """The segments, each of which the server has read before the next is sent."""
        for segment in segments:
            connection.sendall(segment)
            # It reads what is there before it takes a connection that comes later.
            assert self.exchange(b"GET /read HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")

    def exchange(self, *segments: bytes) -> bytes:
        """All that is answered on a connection of its own until the server closes it."""
        with self.connect() as connection:
            if len(segments) > 1:
                self.send(connection, *segments[:-1])
            connection.sendall(segments[-1])
            return everything(connection)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, status, answer = b"", 200, b"{}"
        if scope["path"] == "/early":
            status = 401
        elif scope["path"] == "/large":
            answer = LARGE
        else:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body, more = body + message["body"], message["more_body"]
        if scope["path"] != "/read":
            self.asked.append(Asked(scope["method"], scope["path"], body, scope["headers"]))
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": status, "headers": [length]})
        await send({"type": "http.response.body", "body": answer})


def everything(connection: socket.socket) -> bytes:
    """All until the other side closes, or resets."""
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionResetError:
        pass
    return received
