"""All responses of the gateway: the table of docs/reference/protocol.md. SDKs give up on other responses.

200 is the only code that every SDK takes as delivered. Refusals carry a code and a message, without which one SDK
retries forever. "Not now" is 429 with Retry-After, never a 5xx.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from starlette.responses import Response
from starlette.types import Send

from pipeline_platform.errors import NotNowError, RequestRefusedError
from pipeline_platform.event.types import RejectedEvent

RETRY_AFTER_S_MAX = 300

# Browsers send events from any site; there are no cookies to protect.
_ANY_ORIGIN = (b"access-control-allow-origin", b"*")
_HEADERS = (
    _ANY_ORIGIN,
    (b"access-control-expose-headers", b"retry-after"),
    (b"content-type", b"application/json"),
)
_PREFLIGHT_HEADERS = (
    _ANY_ORIGIN,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*, Authorization"),
    (b"access-control-max-age", b"86400"),
)
_DOCUMENT_HEADERS = (*_HEADERS, (b"cache-control", b"public, max-age=300"))
# For responses after which the rest of the body is not read.
_CLOSE = (b"connection", b"close")


class TryLaterError(NotNowError):
    """Not now: the client may send the same request again after about `wait_s`."""

    def __init__(self, code: str, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.code = code
        self.wait_s = wait_s


class Rejection(msgspec.Struct, rename="camel"):
    """One event of the request that went to quarantine."""

    index: int
    message_id: str | None
    code: str
    message: str

    @classmethod
    def of(cls, index: int, event: RejectedEvent) -> "Rejection":
        return cls(index, event.message_id, event.code, event.message)


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    async def send(self, send: Send) -> None:
        """Send it as plain ASGI messages. A Response object would cost more than all of the parsing."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    def response(self) -> Response:
        """The same as a Response object, where time does not matter."""
        return Response(self.body, self.status, {name.decode(): value.decode() for name, value in self.headers})


PREFLIGHT = Answer(204, _PREFLIGHT_HEADERS, b"")


def accepted(count: int, rejections: list[Rejection]) -> Answer:
    """200, after COMMIT."""
    return Answer(200, _HEADERS, _json({"success": True, "accepted": count, "rejected": rejections}))


def document(body: bytes) -> Answer:
    """200 with JSON that may be cached for a while."""
    return Answer(200, _DOCUMENT_HEADERS, body)


def refused(error: RequestRefusedError) -> Answer:
    """4xx: nothing of the request is stored, and sending it again would not help."""
    answer = refusal(error.status, error.code, str(error))
    return answer._replace(headers=(*answer.headers, _CLOSE)) if error.status == 413 else answer


def refusal(status: int, code: str, message: str, more: Mapping[str, str] | None = None) -> Answer:
    """Any refusal, with additional headers."""
    extra = [(name.encode(), value.encode()) for name, value in (more or {}).items()]
    return Answer(status, (*_HEADERS, *extra), _json({"success": False, "code": code, "message": message}))


def not_now(error: TryLaterError) -> Answer:
    """429 with a random Retry-After from the wait to twice the wait, which spreads the clients."""
    wait_s = int(error.wait_s * random.uniform(1, 2) + 0.5)  # noqa: S311 -- jitter
    more = {"retry-after": str(min(max(wait_s, 1), RETRY_AFTER_S_MAX))}
    if error.code == "body_too_slow":
        more["connection"] = "close"
    return refusal(429, error.code, str(error), more)


def _json(answer: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(answer)
