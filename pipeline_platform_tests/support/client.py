"""A client of the gateway as SDKs are: one connection, kept alive; whatever is not a clear answer is unknown.

It does not retry: that is up to who keeps the ledger.
"""

import base64
import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["acknowledged", "refused", "unknown"]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway said. refused: 429; unknown: no whole answer. Other statuses raise UnexpectedAnswerError."""

    outcome: Outcome
    retry_after_s: int = 0
    accepted: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class UnexpectedAnswerError(AssertionError):
    """An answer that the protocol does not allow for what was sent."""


class Client:
    """Sends one tenant's events. Not for use by several threads."""

    def __init__(self, port: int, write_key: str, timeout_s: float = 10.0) -> None:
        self._port = port
        self._timeout_s = timeout_s
        basic = base64.b64encode(f"{write_key}:".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None

    def send(self, events: Sequence[Event], **envelope: Any) -> Answer:
        """A batch, or the event's own route where it is one event without an envelope."""
        if len(events) == 1 and not envelope:
            return self.post(f"/v1/{events[0]['type']}", events[0])
        return self.post("/v1/batch", {"batch": list(events), **envelope})

    def post(self, path: str, body: Any) -> Answer:
        """One request, with one try."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_s)
            self._connection.request("POST", path, sent, self._headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return Answer("unknown")
        if response.status == 429:
            return Answer("refused", int(response.headers["Retry-After"]))
        if response.status != 200:
            raise UnexpectedAnswerError(f"POST {path}: {response.status} {answer[:500]!r}")
        said = json.loads(answer)
        return Answer("acknowledged", 0, said["accepted"], said["rejected"])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        self.close()
