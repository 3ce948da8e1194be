"""The way of one request: key, body, quota, judgement, commit, answer.

Never answers 200 before COMMIT, never redirects, never sends a 5xx. A plain ASGI application: the objects that
frameworks make of a request would cost more than its events.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from starlette.types import Receive, Scope, Send

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.event import EventType, Lane
from pipeline_platform.event_reader import Limits
from pipeline_platform.gateway import answers
from pipeline_platform.gateway.answers import Answer, Rejection, TryLaterError
from pipeline_platform.gateway.bodies import BodyBudget, ClientLeftError, read_body
from pipeline_platform.gateway.group_commit import GroupCommit
from pipeline_platform.gateway.keys import Keys, Tenant
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
from pipeline_platform.metrics.processes import GatewayNumbers
from pipeline_platform.settings import Settings

_T = TypeVar("_T")
# Larger bodies are judged beside the event loop: a hostile one takes up to 0.2 µs a byte.
_INLINE_BYTES_MAX = 256 << 10


class _Head(NamedTuple):
    """What of a request's head matters."""

    write_key: str | None
    content_encoding: str
    idempotency_key: str | None


@dataclass(slots=True)
class Ingest:
    """The tracking API, as an ASGI application below `/v1/{call}`."""

    settings: Settings
    limits: Limits
    keys: Keys
    quota: Quota
    budget: BodyBudget
    committer: GroupCommit
    watch: Watch
    side: ThreadPoolExecutor
    numbers: GatewayNumbers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._answer(scope, receive)
        if answer is not None:
            await answer.send(send)
            self.numbers.answered(answer.status)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        call = scope["path_params"]["call"]
        kind = SINGLE_CALLS.get(call)
        if kind is None and call not in BATCH_CALLS:
            return answers.refusal(404, "unknown_call", f"there is no call {call!r}: see the tracking API")
        if scope["method"] == "OPTIONS":
            return answers.PREFLIGHT
        try:
            self.watch.check()
            return await self._ingest(kind, _head(scope), receive)
        except RequestRefusedError as error:
            return answers.refused(error)
        except TryLaterError as error:
            return answers.not_now(error)
        except ClientLeftError:
            return None

    async def _ingest(self, kind: EventType | None, head: _Head, receive: Receive) -> Answer:
        if head.write_key:
            # Before the body: who has no key sends none of it to memory.
            await self.keys.tenant_of(head.write_key, None)
        body = None
        try:
            async with asyncio.timeout(None) as clock:
                body = await read_body(receive, head.content_encoding, self.settings, self.budget, clock)
                clock.reschedule(asyncio.get_running_loop().time() + self.settings.answer_timeout_s)
                return await self._accept(kind, body, head)
        except TimeoutError as error:
            if body is None:
                raise TryLaterError("body_too_slow", "the body came too slowly: send it again", 1.0) from error
            raise TryLaterError("timeout", "the events were not stored in time: send this again", 1.0) from error
        finally:
            self.budget.give_back(len(body or b""))

    async def _accept(self, kind: EventType | None, body: bytes, head: _Head) -> Answer:
        aside = len(body) > _INLINE_BYTES_MAX
        opened = await self._open(kind, body, aside)
        tenant = await self.keys.tenant_of(head.write_key, opened.write_key)
        lane = self._lane(tenant, len(opened.events))
        arguments = (opened, tenant.tenant_id, self.limits, head.idempotency_key)
        judged = await self._aside(partial(judge, *arguments)) if aside else judge(*arguments)
        return await self._store(lane, judged)

    async def _open(self, kind: EventType | None, body: bytes, aside: bool) -> OpenedRequest:
        arguments = (kind, body, self.limits, self.settings.request_events_max)
        opened = await self._aside(partial(open_request, *arguments)) if aside else open_request(*arguments)
        return opened or await self._aside(partial(salvage_request, *arguments))

    async def _aside(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self.side, work)

    def _lane(self, tenant: Tenant, events: int) -> Lane:
        lane, wait_s = self.quota.take(tenant.tenant_id, events, tenant.events_per_s)
        if lane is None:
            raise TryLaterError("over_quota", "too many events a second: send this again later", wait_s)
        return lane

    async def _store(self, lane: Lane, judged: Judged) -> Answer:
        late = await self.committer.commit(lane, judged) if judged.accepted or judged.rejected else []
        rejections = list(map(Rejection.of, judged.rejected_at, judged.rejected))
        if late:
            rejections += [Rejection.of(judged.accepted_at[one.accepted_index], one.event) for one in late]
            rejections.sort(key=lambda rejection: rejection.index)
        return answers.accepted(len(judged.accepted) - len(late), rejections)


def _head(scope: Scope) -> _Head:
    authorization = encoding = idempotency_key = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value
        elif name == b"content-encoding":
            # Sent twice it means the same as a list.
            encoding = value if encoding is None else encoding + b"," + value
        elif name == b"idempotency-key":
            idempotency_key = value.decode("latin-1")
    return _Head(key_of_header(authorization), (encoding or b"").decode("latin-1"), idempotency_key)
