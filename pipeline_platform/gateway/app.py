"""The gateway's parts, connected, and its routes: the tracking API, `/healthz`, `/readyz` and `/metrics`.

Whatever goes wrong unforeseen is logged and answered 429, so that no SDK drops its events.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline_platform.event_reader import Limits
from pipeline_platform.gateway import answers
from pipeline_platform.gateway.answers import Answer, TryLaterError
from pipeline_platform.gateway.bodies import BodyBudget
from pipeline_platform.gateway.group_commit import GroupCommit
from pipeline_platform.gateway.ingest import Ingest
from pipeline_platform.gateway.keys import Keys
from pipeline_platform.gateway.link import Link, StatementLink
from pipeline_platform.gateway.notifier import Notifier
from pipeline_platform.gateway.quota import Quota
from pipeline_platform.gateway.traced import NotingArrival, TracedCommit
from pipeline_platform.gateway.watch import Watch
from pipeline_platform.metrics.endpoint import processes_route
from pipeline_platform.metrics.processes import GatewayNumbers
from pipeline_platform.settings import Settings
from pipeline_platform.tracing import Tracer

_SIDE_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Gateway:
    """Everything that one gateway process works with."""

    ingest: Ingest
    notifier: Notifier
    links: tuple[Link, ...]
    # What the tracking API's routes lead to: the ingest, or what traces it.
    entry: ASGIApp

    async def healthz(self, _: Request) -> Response:
        """The process lives and its event loop turns."""
        return JSONResponse({"alive": True})

    async def readyz(self, _: Request) -> Response:
        """Events can be accepted; else what is missing."""
        missing = self.ingest.watch.missing
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @contextlib.asynccontextmanager
    async def running(self, _: Starlette) -> AsyncGenerator[None]:
        """Everything in the background, from before the first request to after the last answer."""
        self.ingest.committer.start()
        parts = (self.ingest.keys, self.ingest.watch, self.notifier)
        tasks = [asyncio.create_task(part.run()) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.ingest.committer.stop()
            for link in self.links:
                await link.close()
            self.ingest.side.shutdown(wait=False, cancel_futures=True)


def make_gateway(settings: Settings, database_url: str, tracer: Tracer | None = None) -> Gateway:
    """The parts of one process, connected to each other and not yet to the database."""
    keys = Link(database_url, "gateway keys", _SIDE_TIMEOUT_S)
    watch = Link(database_url, "gateway watch", _SIDE_TIMEOUT_S)
    wakes = StatementLink(database_url, "gateway notifier", _SIDE_TIMEOUT_S, "-c synchronous_commit=off")
    notifier = Notifier(wakes)
    numbers = GatewayNumbers()
    if tracer is None:
        committer = GroupCommit(settings, database_url, notifier.wake_workers, numbers)
    else:
        committer = TracedCommit(settings, database_url, notifier.wake_workers, numbers, tracer)
    ingest = Ingest(
        settings=settings,
        limits=Limits.of(settings),
        keys=Keys(settings, keys),
        quota=Quota(settings.tenant_events_per_s, settings.tenant_events_per_s_max),
        budget=BodyBudget(settings.bodies_bytes_max),
        committer=committer,
        watch=Watch(settings, watch, lambda: committer.trouble),
        side=ThreadPoolExecutor(max_workers=2, thread_name_prefix="judge"),
        numbers=numbers,
    )
    return Gateway(ingest, notifier, (keys, watch, wakes), NotingArrival(ingest) if tracer else ingest)


def make_app(gateway: Gateway) -> Starlette:
    """The routes. With and without a slash at the end: a redirect would make some SDKs drop their events."""
    app = Starlette(
        routes=[
            Route("/v1/{call}", gateway.entry, methods=["POST", "OPTIONS"]),
            Route("/v1/{call}/", gateway.entry, methods=["POST", "OPTIONS"]),
            Route("/healthz", gateway.healthz),
            Route("/readyz", gateway.readyz),
            processes_route(gateway.ingest.settings.home),
        ],
        lifespan=gateway.running,
        exception_handlers={HTTPException: _no_such_route, Exception: _unforeseen},
    )
    app.router.redirect_slashes = False
    return app


async def _no_such_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    return _response(answers.refusal(error.status_code, code, str(error.detail), error.headers))


async def _unforeseen(_: Request, __: Exception) -> Response:
    # The server logs the error itself once this is sent.
    return _response(answers.not_now(TryLaterError("not_stored", "the gateway failed: send this again", 5.0)))


def _response(answer: Answer) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)
