"""The gateway's parts, connected, and its routes: the tracking API, `/healthz`, `/readyz` and `/metrics`.

Unforeseen errors are logged and answered with 429, so that no SDK drops its events.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline_platform.event.reader import Limits
from pipeline_platform.gateway import responses
from pipeline_platform.gateway.background import Background
from pipeline_platform.gateway.bodies import BodyBudget
from pipeline_platform.gateway.browser_settings import BrowserSettings
from pipeline_platform.gateway.db_connection import BoundedConnection, StatementConnection
from pipeline_platform.gateway.group_commit import GroupCommit
from pipeline_platform.gateway.ingest import Ingest
from pipeline_platform.gateway.notifier import Notifier
from pipeline_platform.gateway.quota import Quota
from pipeline_platform.gateway.readiness import Readiness
from pipeline_platform.gateway.responses import TryLaterError
from pipeline_platform.gateway.traced import NotingArrival, TracedCommit
from pipeline_platform.gateway.write_keys import WriteKeys
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.endpoint import processes_route
from pipeline_platform.telemetry.metrics.processes import GatewayNumbers
from pipeline_platform.telemetry.tracing import Tracer

_SIDE_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Gateway:
    """The parts of one gateway process."""

    ingest: Ingest
    notifier: Notifier
    connections: tuple[BoundedConnection, ...]
    # The handler of the tracking API's routes: the ingest, or its wrapper for traces.
    entry: ASGIApp
    background: Background

    async def healthz(self, _: Request) -> Response:
        """The process and its event loop are running."""
        return JSONResponse({"alive": True})

    async def readyz(self, _: Request) -> Response:
        """Whether events can be accepted. If not, what is missing."""
        missing = [*self.ingest.readiness.missing, *(f"the background task {name}" for name in self.background.ended)]
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @contextlib.asynccontextmanager
    async def running(self, _: Starlette) -> AsyncGenerator[None]:
        """Run the background tasks from before the first request until after the last response."""
        self.ingest.committer.start(self.background)
        self.background.start("keys", self.ingest.keys.run())
        self.background.start("readiness", self.ingest.readiness.run())
        self.background.start("notifier", self.notifier.run())
        try:
            yield
        finally:
            await self.background.stop()
            await self.ingest.committer.stop()
            for connection in self.connections:
                await connection.close()
            self.ingest.side.shutdown(wait=False, cancel_futures=True)


def make_gateway(
    settings: Settings,
    database_url: str,
    tracer: Tracer | None = None,
    failed: Callable[[], None] = lambda: None,
) -> Gateway:
    """Make the parts of one process and connect them to each other, but not yet to the database.

    `failed` is called when the process has to end, because a part of it has ended.
    """
    keys = BoundedConnection(database_url, "gateway keys", _SIDE_TIMEOUT_S)
    checks = BoundedConnection(database_url, "gateway readiness", _SIDE_TIMEOUT_S)
    wakes = StatementConnection(database_url, "gateway notifier", _SIDE_TIMEOUT_S, "-c synchronous_commit=off")
    notifier = Notifier(wakes)
    numbers = GatewayNumbers()
    if tracer is None:
        committer = GroupCommit(settings, database_url, notifier.wake_workers, numbers)
    else:
        committer = TracedCommit(settings, database_url, notifier.wake_workers, numbers, tracer)
    ingest = Ingest(
        settings=settings,
        limits=Limits.of(settings),
        keys=WriteKeys(settings, keys),
        quota=Quota(settings.tenant_events_per_s, settings.tenant_events_per_s_max, settings.tenant_bytes_per_s_max),
        budget=BodyBudget(settings.bodies_bytes_max),
        committer=committer,
        readiness=Readiness(settings, checks, lambda: committer.trouble),
        side=ThreadPoolExecutor(max_workers=2, thread_name_prefix="judge"),
        numbers=numbers,
    )
    entry = NotingArrival(ingest) if tracer else ingest
    return Gateway(ingest, notifier, (keys, checks, wakes), entry, Background(failed))


def make_app(gateway: Gateway) -> Starlette:
    """The routes, with and without a trailing slash. A redirect would make some SDKs drop their events."""
    settings = BrowserSettings(gateway.ingest.keys)
    app = Starlette(
        routes=[
            Route("/v1/{call}", gateway.entry, methods=["POST", "OPTIONS"]),
            Route("/v1/{call}/", gateway.entry, methods=["POST", "OPTIONS"]),
            Route("/beacon/v1/{call}", gateway.entry, methods=["POST", "OPTIONS"]),
            Route("/beacon/v1/{call}/", gateway.entry, methods=["POST", "OPTIONS"]),
            Route("/v1/projects/{key}/settings", settings.segment, methods=["GET", "OPTIONS"]),
            Route("/sourceConfig", settings.rudderstack, methods=["GET", "OPTIONS"]),
            Route("/sourceConfig/", settings.rudderstack, methods=["GET", "OPTIONS"]),
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
    return responses.refusal(error.status_code, code, str(error.detail), error.headers).response()


async def _unforeseen(_: Request, __: Exception) -> Response:
    # The server logs the error after this is sent.
    return responses.not_now(TryLaterError("not_stored", "the gateway failed: send this again", 5.0)).response()
