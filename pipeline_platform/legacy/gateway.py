"""The old pipeline's API gateway: answers 200 once the events are in the queue, 429 where it is over its rate.

It trusts what it is sent: the mirror forwards what our own gateway has judged.
"""

import contextlib
import time
import uuid
from collections.abc import AsyncGenerator

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline_platform.event import event_id_of
from pipeline_platform.legacy.capacity import Capacity, TokenBucket
from pipeline_platform.legacy.counts import Counts, counting
from pipeline_platform.legacy.queueing import Message, Queue
from pipeline_platform.settings import Settings

_COUNTED = {"X-Pipeline-Counted": "true"}


class _Batch(msgspec.Struct):
    batch: list[msgspec.Raw]


class _Identity(msgspec.Struct):
    messageId: str | None = None


_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode_identity = msgspec.json.Decoder(_Identity, strict=False).decode


class Gateway:
    """The parts of the gateway's process."""

    def __init__(self, settings: Settings) -> None:
        capacity = Capacity(settings.legacy_capacity_per_s)
        self._settings = settings
        self._requests = TokenBucket(capacity.gateway_per_s)
        self._sends = TokenBucket(capacity.queue_per_s)
        self._queue = Queue(settings.redis_url)
        self._counts: Counts

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        async with counting(self._settings.database_url) as self._counts:
            yield
        await self._queue.close()

    async def batch(self, request: Request) -> Response:
        """POST /v1/batch, with the tenant's id in a header."""
        try:
            tenant_id = int(request.headers["X-Pipeline-Tenant-Id"])
            events = _decode_batch(await request.body()).batch
        except (KeyError, ValueError) as error:
            return Response(f"bad request: {error}", 400, _COUNTED)
        now = time.time()
        messages = [Message(tenant_id, _event_id(bytes(event)), now, event) for event in events]
        self._counts.arrived("gateway", messages)
        if not self._requests.take_all(len(messages)):
            self._counts.failed("gateway", "throttled", messages)
            return Response("throttled", 429, _COUNTED)
        await self._enqueue(messages)
        return Response("ok", 200, _COUNTED)

    async def _enqueue(self, messages: list[Message]) -> None:
        self._counts.proceeded("gateway", messages)
        self._counts.arrived("queue", messages)
        sent = [message for message in messages if self._sends.take_all(1)]
        if len(sent) < len(messages):
            self._counts.failed("queue", "throttled", messages[len(sent) :])
        if sent:
            await self._queue.send(messages[: len(sent)])


def _event_id(event: bytes) -> str:
    try:
        message_id = _decode_identity(event).messageId
    except ValueError:
        message_id = None
    return str(event_id_of(message_id) if message_id else uuid.uuid4())


def app_of(settings: Settings) -> Starlette:
    """The gateway as an ASGI application."""
    gateway = Gateway(settings)

    async def healthz(_request: Request) -> Response:
        return Response("ok")

    routes = [
        Route("/v1/batch", gateway.batch, methods=["POST"]),
        Route("/healthz", healthz, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=gateway.lifespan)
