"""The group commit with traces. It replaces the plain one if the environment enables traces."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

import msgspec
from psycopg import pq
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline_platform.event.types import AcceptedEvent, Lane
from pipeline_platform.gateway.group_commit import GroupCommit
from pipeline_platform.gateway.isolation import Late
from pipeline_platform.gateway.pending import Waiting
from pipeline_platform.gateway.protocol import Judged
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import GatewayNumbers
from pipeline_platform.telemetry.tracing import Tracer, never_in_the_way

# The number of requests of a batch that get a span, and of messageIds in the span of a request.
_REQUESTS_MAX = 100
_MESSAGE_IDS_MAX = 5
_arrived_ns: ContextVar[int] = ContextVar("arrived_ns")


class _Named(msgspec.Struct):
    message_id: object = msgspec.field(default=None, name="messageId")


_named = msgspec.json.Decoder(_Named)


@dataclass(frozen=True, slots=True)
class NotingArrival:
    """`inner`, with the time at which its request arrived. It is a class: Starlette handles a function differently."""

    inner: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        _arrived_ns.set(time.time_ns())
        await self.inner(scope, receive, send)


class TracedCommit(GroupCommit):
    """Makes the root span of each batch, a span of its commit and a span of each request in it."""

    def __init__(
        self, settings: Settings, url: str, committed: Callable[[], None], numbers: GatewayNumbers, tracer: Tracer
    ) -> None:
        super().__init__(settings, url, committed, numbers)
        self._tracer = tracer
        self._arrivals: dict[int, int] = {}

    async def commit(self, lane: Lane, judged: Judged) -> list[Late]:
        """The same as in GroupCommit."""
        self._arrivals[id(judged)] = _arrived_ns.get(time.time_ns())
        try:
            return await super().commit(lane, judged)
        finally:
            del self._arrivals[id(judged)]

    def _done(self, group: list[Waiting], result: pq.abc.PGresult | None, seconds: float) -> None:
        super()._done(group, result, seconds)
        end_ns = time.time_ns()
        batch_id, received_at = (result.get_value(0, column) for column in (0, 1)) if result else (None, None)
        # A group in which all events were rejected makes no batch.
        if batch_id and received_at:
            commit_ns = (end_ns - int(seconds * 1e9), end_ns)
            with never_in_the_way():
                self._trace(int(batch_id), datetime.fromisoformat(received_at.decode()), group, commit_ns)

    def _trace(self, batch_id: int, received_at: datetime, group: list[Waiting], commit_ns: tuple[int, int]) -> None:
        batch = self._tracer.batch(batch_id, received_at)
        if batch is None:
            return
        # A request that stopped waiting has no arrival.
        came = [(self._arrivals.get(id(waiting.judged), commit_ns[0]), waiting) for waiting in group]
        events = sum(len(waiting.judged.accepted) for waiting in group)
        counted = {"pipeline.lane": group[0].lane.value, "pipeline.events": events, "pipeline.requests": len(group)}
        batch.root((min(at for at, _ in came), commit_ns[1]), counted)
        for arrived_ns, waiting in came[:_REQUESTS_MAX]:
            batch.span("gateway.accept", (arrived_ns, commit_ns[0]), _request(waiting.judged))
        batch.span("gateway.commit", commit_ns, counted)


def _request(judged: Judged) -> dict[str, str | int | list[str]]:
    first = [*judged.accepted, *judged.rejected][0]
    return {
        "pipeline.tenant_id": first.tenant_id,
        "pipeline.events": len(judged.accepted),
        "pipeline.rejected": len(judged.rejected),
        "pipeline.message_ids": [_message_id(event) for event in judged.accepted[:_MESSAGE_IDS_MAX]],
    }


def _message_id(event: AcceptedEvent) -> str:
    return str(_named.decode(event.payload).message_id or event.event_id)
