"""A legacy pipeline that does as it is told: an HTTP server that keeps what it gets and answers as a test wants."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class LegacyServer:
    """A real server; answers with `status` after `open` is set, and keeps what it got."""

    status: int = 200
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def events(self) -> list[str]:
        return [event["messageId"] for _, body in self.got for event in body["batch"]]


@contextmanager
def legacy_server(status: int = 200, *, hangs: bool = False, takes_s: float = 0.0) -> Iterator[LegacyServer]:
    state = LegacyServer(status)
    if not hangs:
        state.open.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.got.append((dict(self.headers), json.loads(body)))
            state.open.wait(30)
            time.sleep(takes_s)
            self.send_response(state.status)
            if 300 <= state.status < 400:
                self.send_header("Location", state.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1/batch"
    try:
        yield state
    finally:
        state.open.set()
        server.shutdown()
        server.server_close()
