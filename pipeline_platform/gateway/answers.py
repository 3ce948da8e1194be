"""The answers of the gateway, and no others: PROTOCOL's table, for SDKs that give up on anything else.

200 is the one code that every SDK takes as delivered; refusals carry code and message, without which one SDK
retries for ever; "not now" is 429 with Retry-After, never a 5xx.
"""

import random

import msgspec
from starlette.responses import Response

from pipeline_platform.errors import NotNowError, RequestRefusedError
from pipeline_platform.event import RejectedEvent

RETRY_AFTER_S_MAX = 300

# Browsers send events from any site; there are no cookies to protect.
CORS = {"access-control-allow-origin": "*", "access-control-expose-headers": "retry-after"}
PREFLIGHT = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, OPTIONS",
    "access-control-allow-headers": "*, Authorization",
    "access-control-max-age": "86400",
}


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


class _Accepted(msgspec.Struct):
    success: bool
    accepted: int
    rejected: list[Rejection]


class _Refused(msgspec.Struct):
    success: bool
    code: str
    message: str


def accepted(count: int, rejections: list[Rejection]) -> Response:
    """200, after COMMIT."""
    return _json(200, _Accepted(True, count, rejections))


def refused(error: RequestRefusedError) -> Response:
    """4xx: nothing of the request is stored, and sending it again would not help."""
    response = refusal(error.status, error.code, str(error))
    if error.status == 413:
        # What is still to come of the body is not read.
        response.headers["connection"] = "close"
    return response


def refusal(status: int, code: str, message: str) -> Response:
    return _json(status, _Refused(False, code, message))


def not_now(error: TryLaterError) -> Response:
    """429, with a Retry-After that spreads the clients: between the wait and twice as long."""
    response = refusal(429, error.code, str(error))
    wait_s = int(error.wait_s * random.uniform(1, 2) + 0.5)  # noqa: S311 -- jitter
    response.headers["retry-after"] = str(min(max(wait_s, 1), RETRY_AFTER_S_MAX))
    if error.code == "body_too_slow":
        response.headers["connection"] = "close"
    return response


def _json(status: int, body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), status, CORS, "application/json")
