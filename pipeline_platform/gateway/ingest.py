"""The steps of one request: write key, body, quota, validation, commit, response.

The write key is checked first. A body that contains its write key is read up to a lower limit, and searched for the
write key before any other processing.

Never answers 200 before COMMIT, never redirects, never sends a 5xx. It is a plain ASGI application: the request objects
of a framework would cost more than the events.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from starlette.types import Receive, Scope, Send

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.event.reader import Limits
from pipeline_platform.event.types import EventType, Lane
from pipeline_platform.gateway import responses
from pipeline_platform.gateway.bodies import BodyBudget, ClientLeftError, Held, read_body
from pipeline_platform.gateway.group_commit import GroupCommit
from pipeline_platform.gateway.protocol import (
    BATCH_CALLS,
    SINGLE_CALLS,
    Judged,
    OpenedRequest,
    judge,
    key_of_header,
    key_of_query,
    keys_of_body,
    open_invalid_request,
    open_ndjson,
    open_request,
)
from pipeline_platform.gateway.quota import Quota
from pipeline_platform.gateway.readiness import Readiness
from pipeline_platform.gateway.responses import Answer, Rejection, TryLaterError
from pipeline_platform.gateway.write_keys import Tenant, WriteKeys
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import GatewayNumbers

_T = TypeVar("_T")
# Larger bodies are judged in a thread: a hostile one takes up to 0.2 µs per byte.
_INLINE_BYTES_MAX = 256 << 10
# For bodies without a write key in the head. SDKs send less at once. To decompress and search this much takes 2 ms.
_KEYLESS_BYTES_MAX = 1 << 20
_KEYLESS_PART_OF_BUDGET = 4
# Splitting a body of invalid JSON takes this many times as long as parsing it. The tenant's quota is charged for it.
_INVALID_JSON_COST = 20
# The Idempotency-Key is hashed with each event.
_IDEMPOTENCY_KEY_MAX = 1_024
# The media types of bodies with one event per line.
_LINES = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/jsonlines"})


class _Head(NamedTuple):
    """The relevant fields of a request's head."""

    write_key: str | None
    query_key: str | None
    content_encoding: str
    idempotency_key: str | None
    is_lines: bool


@dataclass(slots=True)
class Ingest:
    """The tracking API, as an ASGI application below `/v1/{call}`."""

    settings: Settings
    limits: Limits
    keys: WriteKeys
    quota: Quota
    budget: BodyBudget
    committer: GroupCommit
    readiness: Readiness
    side: ThreadPoolExecutor
    numbers: GatewayNumbers
    # For bodies whose write key is not known yet. They cannot use up the budget of other requests.
    keyless_budget: BodyBudget = field(init=False)

    def __post_init__(self) -> None:
        self.keyless_budget = BodyBudget(self.budget.bytes_max // _KEYLESS_PART_OF_BUDGET)

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
            return responses.refusal(404, "unknown_call", f"there is no call {call!r}: see the tracking API")
        if scope["method"] == "OPTIONS":
            return responses.PREFLIGHT
        try:
            self.readiness.check()
            return await self._ingest(kind, _head(scope), receive)
        except RequestRefusedError as error:
            return responses.refused(error)
        except TryLaterError as error:
            return responses.not_now(error)
        except ClientLeftError:
            return None

    async def _ingest(self, kind: EventType | None, head: _Head, receive: Receive) -> Answer:
        tenant = None
        if head.write_key or head.query_key:
            # Authenticate before reading the body.
            tenant = await self.keys.tenant_of(head.write_key, head.query_key)
            self._check_bytes(tenant)
        held = Held(self.budget if tenant else self.keyless_budget)
        body = None
        try:
            async with asyncio.timeout(None) as clock:
                bytes_max = self.settings.body_bytes_max if tenant else self._keyless_bytes_max
                encoding, piece_s = head.content_encoding, self.settings.body_timeout_s
                body = await read_body(receive, encoding, bytes_max, held, clock, piece_s)
                clock.reschedule(asyncio.get_running_loop().time() + self.settings.answer_timeout_s)
                tenant = tenant or await self._tenant_of_body(body)
                return await self._accept(kind, body, head, tenant, held)
        except TimeoutError as error:
            if body is None:
                raise TryLaterError("body_too_slow", "the body came too slowly: send it again", 1.0) from error
            raise TryLaterError("timeout", "the events were not stored in time: send this again", 1.0) from error
        finally:
            held.release()
            if tenant is not None:
                self.quota.spend_bytes(tenant.tenant_id, held.cost)

    @property
    def _keyless_bytes_max(self) -> int:
        return min(_KEYLESS_BYTES_MAX, self.settings.body_bytes_max)

    async def _tenant_of_body(self, body: bytes) -> Tenant:
        """The tenant of any write key in it, to charge for parsing. Which write key counts is decided after that."""
        keys = await self._aside(partial(keys_of_body, body)) if len(body) > _INLINE_BYTES_MAX else keys_of_body(body)
        refusal: RequestRefusedError | None = None
        for key in keys or [None]:
            try:
                tenant = await self.keys.tenant_of(None, key)
            except RequestRefusedError as error:
                refusal = error
            else:
                self._check_bytes(tenant)
                return tenant
        assert refusal is not None
        raise refusal

    def _check_bytes(self, tenant: Tenant) -> None:
        wait_s = self.quota.bytes_wait_s(tenant.tenant_id)
        if wait_s > 0:
            raise TryLaterError("over_quota", "too many bytes a second: send this again later", wait_s)

    async def _accept(self, kind: EventType | None, body: bytes, head: _Head, tenant: Tenant, held: Held) -> Answer:
        aside = len(body) > _INLINE_BYTES_MAX
        opened = await self._open(kind, body, head, held)
        if opened.write_key or not (head.write_key or head.query_key):
            tenant = await self.keys.tenant_of(head.write_key or head.query_key, opened.write_key)
        lane = self._lane(tenant, len(opened.events))
        arguments = (opened, tenant.tenant_id, self.limits, head.idempotency_key)
        judged = await self._aside(partial(judge, *arguments)) if aside else judge(*arguments)
        return await self._store(lane, judged)

    async def _open(self, kind: EventType | None, body: bytes, head: _Head, held: Held) -> OpenedRequest:
        aside = len(body) > _INLINE_BYTES_MAX
        if head.is_lines and kind is None:
            lines = (body, self.limits, self.settings.request_events_max)
            return await self._aside(partial(open_ndjson, *lines)) if aside else open_ndjson(*lines)
        arguments = (kind, body, self.limits, self.settings.request_events_max)
        opened = await self._aside(partial(open_request, *arguments)) if aside else open_request(*arguments)
        if opened is None:
            held.cost += _INVALID_JSON_COST * len(body)
            opened = await self._aside(partial(open_invalid_request, *arguments))
        return opened

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
        return responses.accepted(len(judged.accepted) - len(late), rejections)


def _head(scope: Scope) -> _Head:
    authorization = encoding = idempotency_key = None
    is_lines = False
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value
        elif name == b"content-encoding":
            # A repeated header means the same as a list.
            encoding = value if encoding is None else encoding + b"," + value
        elif name == b"content-type":
            is_lines = value.partition(b";")[0].strip().lower() in _LINES
        elif name == b"idempotency-key":
            idempotency_key = value.decode("latin-1")
    if idempotency_key is not None and len(idempotency_key) > _IDEMPOTENCY_KEY_MAX:
        message = f"Idempotency-Key may have {_IDEMPOTENCY_KEY_MAX} characters"
        raise RequestRefusedError(400, "invalid_idempotency_key", message)
    keys = key_of_header(authorization), key_of_query(scope["query_string"])
    return _Head(*keys, (encoding or b"").decode("latin-1"), idempotency_key, is_lines)
