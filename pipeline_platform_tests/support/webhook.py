"""A real webhook: an HTTP server that takes alerts as apprise's json:// sends them, and refuses some first."""

import json
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Told:
    """One message that was taken."""

    title: str
    text: str
    type: str


class Webhook:
    """Answers 500 to the first `refusals` messages with a title, then 200."""

    def __init__(self, refusals: int = 1, port: int = 0) -> None:
        self.taken: list[Told] = []
        self.refused: Counter[str] = Counter()
        self._refusals = refusals
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _judge(self, body: dict[str, str]) -> int:
        title = body["title"]
        if self.refused[title] < self._refusals:
            self.refused[title] += 1
            return 500
        self.taken.append(Told(title, body["message"], body["type"]))
        return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(hook._judge(body))
                self.end_headers()

            def do_GET(self) -> None:
                hook.taken.append(Told("heartbeat", self.path, "get"))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        return Handler
