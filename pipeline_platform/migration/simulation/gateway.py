"""The old pipeline's API gateway: answers 200 when the events are in the queue, 429 above its rate.

It does not validate events: the platform's gateway has already validated what the mirror forwards.
"""

import contextlib
import time
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline_platform.migration.simulation.capacity import Capacity, TokenBucket
from pipeline_platform.migration.simulation.counts import Counts, counting
from pipeline_platform.migration.simulation.queueing import Message, Queue
from pipeline_platform.migration.simulation.rows import messages_of
from pipeline_platform.settings import Settings

_COUNTED = {"X-Pipeline-Counted": "true"}


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
            messages = messages_of(await request.body(), tenant_id, time.time())
        except (KeyError, ValueError) as error:
            return Response(f"bad request: {error}", 400, _COUNTED)
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
