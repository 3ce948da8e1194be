"""The gateway's routes and the way of one request: body, key, quota, judgement, commit, answer.

Never answers 200 before COMMIT, never redirects, never sends a 5xx to a client of the tracking API. Whatever goes
wrong unforeseen is logged and answered 429, so that no SDK drops its events.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.event import EventType, Lane
from pipeline_platform.event_reader import Limits
from pipeline_platform.gateway import answers
from pipeline_platform.gateway.answers import Rejection, TryLaterError
from pipeline_platform.gateway.bodies import BodyBudget, read_body
from pipeline_platform.gateway.group_commit import GroupCommit
from pipeline_platform.gateway.keys import Keys, Tenant
from pipeline_platform.gateway.link import Link
from pipeline_platform.gateway.notifier import Notifier
from pipeline_platform.gateway.protocol import (
    BATCH_CALLS,
    SINGLE_CALLS,
    Judged,
    OpenedRequest,
    judge,
    key_of_header,
    open_request,
    salvage_request,
)
from pipeline_platform.gateway.quota import Quota
from pipeline_platform.gateway.watch import Watch
from pipeline_platform.settings import Settings

_T = TypeVar("_T")
# Larger bodies are judged beside the event loop: a hostile one takes up to 0.2 µs a byte.
_INLINE_BYTES_MAX = 256 << 10
_SIDE_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Gateway:
    """Everything that one gateway process works with."""

    settings: Settings
    limits: Limits
    keys: Keys
    quota: Quota
    budget: BodyBudget
    committer: GroupCommit
    notifier: Notifier
    watch: Watch
    links: tuple[Link, ...]
    side: ThreadPoolExecutor

    async def ingest(self, request: Request) -> Response:
        """Answer one request of the tracking API."""
        call = request.path_params["call"]
        kind = SINGLE_CALLS.get(call)
        if kind is None and call not in BATCH_CALLS:
            return answers.refusal(404, "unknown_call", f"there is no call {call!r}: see the tracking API")
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=answers.PREFLIGHT)
        try:
            self.watch.check()
            in_header = key_of_header(request.headers.get("authorization"))
            if in_header:
                # Before the body: who has no key sends none of it to memory.
                await self.keys.tenant_of(in_header, None)
            encoding = request.headers.get("content-encoding", "")
            body = await read_body(request.stream(), encoding, self.settings, self.budget)
            try:
                async with asyncio.timeout(self.settings.answer_timeout_s):
                    return await self._accept(kind, body, in_header, request.headers.get("idempotency-key"))
            except TimeoutError:
                return answers.not_now(TryLaterError("timeout", "the events were not stored in time", 1.0))
            finally:
                self.budget.give_back(len(body))
        except RequestRefusedError as error:
            return answers.refused(error)
        except TryLaterError as error:
            return answers.not_now(error)
        except ClientDisconnect:
            return answers.refusal(400, "client_left", "the body did not arrive")

    async def _accept(
        self, kind: EventType | None, body: bytes, in_header: str | None, idempotency_key: str | None
    ) -> Response:
        aside = len(body) > _INLINE_BYTES_MAX
        opened = await self._open(kind, body, aside)
        tenant = await self.keys.tenant_of(in_header, opened.write_key)
        lane = self._lane(tenant, len(opened.events))
        arguments = (opened, tenant.tenant_id, self.limits, idempotency_key)
        judged = await self._aside(partial(judge, *arguments)) if aside else judge(*arguments)
        return await self._store(lane, judged)

    async def _open(self, kind: EventType | None, body: bytes, aside: bool) -> OpenedRequest:
        arguments = (kind, body, self.limits, self.settings.request_events_max)
        opened = await self._aside(partial(open_request, *arguments)) if aside else open_request(*arguments)
        return opened or await self._aside(partial(salvage_request, *arguments))

    async def _aside(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self.side, work)

    async def _store(self, lane: Lane, judged: Judged) -> Response:
        late = await self.committer.commit(lane, judged) if judged.accepted or judged.rejected else []
        rejections = list(map(Rejection.of, judged.rejected_at, judged.rejected))
        if late:
            rejections += [Rejection.of(judged.accepted_at[one.accepted_index], one.event) for one in late]
            rejections.sort(key=lambda rejection: rejection.index)
        return answers.accepted(len(judged.accepted) - len(late), rejections)

    def _lane(self, tenant: Tenant, events: int) -> Lane:
        lane, wait_s = self.quota.take(tenant.tenant_id, events, tenant.events_per_s)
        if lane is None:
            raise TryLaterError("over_quota", "too many events a second: send this again later", wait_s)
        return lane

    async def healthz(self, _: Request) -> Response:
        """The process lives and its event loop turns."""
        return JSONResponse({"alive": True})

    async def readyz(self, _: Request) -> Response:
        """Events can be accepted; else what is missing."""
        missing = self.watch.missing
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @contextlib.asynccontextmanager
    async def running(self, _: Starlette) -> AsyncGenerator[None]:
        """Everything in the background, between the first request and the last answer."""
        self.committer.start()
        tasks = [asyncio.create_task(part.run()) for part in (self.keys, self.notifier, self.watch)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.committer.stop()
            for link in self.links:
                await link.close()
            self.side.shutdown(wait=False, cancel_futures=True)


def make_gateway(settings: Settings, database_url: str) -> Gateway:
    """The parts of one process, connected to each other and not yet to the database."""
    keys, notifier, watch = (
        Link(database_url, "gateway keys", _SIDE_TIMEOUT_S),
        Link(database_url, "gateway notifier", _SIDE_TIMEOUT_S, "-c synchronous_commit=off"),
        Link(database_url, "gateway watch", _SIDE_TIMEOUT_S),
    )
    waker = Notifier(notifier)
    return Gateway(
        settings=settings,
        limits=Limits.of(settings),
        keys=Keys(settings, keys),
        quota=Quota(settings.tenant_events_per_s, settings.tenant_events_per_s_max),
        budget=BodyBudget(settings.bodies_bytes_max),
        committer=GroupCommit(settings, database_url, waker.wake_workers),
        notifier=waker,
        watch=Watch(settings, watch),
        links=(keys, notifier, watch),
        side=ThreadPoolExecutor(max_workers=2, thread_name_prefix="judge"),
    )


def make_app(gateway: Gateway) -> Starlette:
    """The routes. With and without a slash at the end: a redirect would make some SDKs drop their events."""
    app = Starlette(
        routes=[
            Route("/v1/{call}", gateway.ingest, methods=["POST", "OPTIONS"]),
            Route("/v1/{call}/", gateway.ingest, methods=["POST", "OPTIONS"]),
            Route("/healthz", gateway.healthz),
            Route("/readyz", gateway.readyz),
        ],
        lifespan=gateway.running,
        exception_handlers={HTTPException: _no_such_route, Exception: _unforeseen},
    )
    app.router.redirect_slashes = False
    return app


async def _no_such_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    response = answers.refusal(error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _unforeseen(_: Request, __: Exception) -> Response:
    # The server logs the error itself once this is sent.
    return answers.not_now(TryLaterError("not_stored", "the gateway failed: send this again", 5.0))
