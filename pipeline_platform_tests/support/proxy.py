"""A TCP proxy before PostgreSQL that can lose a reply: the server has done it, the client never hears of it."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class ReplyLosingProxy:
    """Forwards to the server of `url`; `url` of the proxy itself is in `url`. Leaving the context ends it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{parts.port}/", f":{self._listener.getsockname()[1]}/")
        self._marker = b""
        self._armed = threading.Event()
        self.lost = 0

    def lose_reply_to(self, marker: bytes) -> None:
        """Lose the reply to the next message of any client that holds `marker`, and reset its connection."""
        self._marker = marker
        self._armed.set()

    @property
    def is_armed(self) -> bool:
        return self._armed.is_set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            doomed = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, doomed), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, doomed), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                if self._armed.is_set() and self._marker in data:
                    self._armed.clear()
                    doomed.set()
                server.sendall(data)
        _close(server, client)

    def _answer(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                if doomed.is_set():
                    # What the server answers only after its commit.
                    self.lost += 1
                    break
                client.sendall(data)
        _close(client, server)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
