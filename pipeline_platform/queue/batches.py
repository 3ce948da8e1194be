"""The queue's unit of work, the batch: encode accepted events, claim them, read them back, complete them.

The worker's own transaction holds a claim (FOR UPDATE SKIP LOCKED). A crash rolls it back, so there is no lease that
could expire. Nothing here commits; the caller's transaction does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, LiteralString, NamedTuple, TypeVar

import psycopg
import zstandard

from pipeline_platform import arrays
from pipeline_platform.db import queries
from pipeline_platform.event.types import (
    AcceptedEvent,
    BatchId,
    EventType,
    Lane,
    QueuedEvent,
    RejectedEvent,
    TenantId,
    WorkId,
)

# Below this size, zstd saves little and adds latency in quiet hours.
_COMPRESS_FROM_BYTES = 1_024
_compressor = zstandard.ZstdCompressor(level=1)
_decompressor = zstandard.ZstdDecompressor()

# Bytes of uncompressed events in a claim, unless its first batch alone is larger. A worker needs about eight times as
# much memory while it makes rows of them.
CLAIM_BYTES_MAX = 16 << 20

_SQL = queries("queue")
T = TypeVar("T")

# transaction_timeout of accepting and importing. It limits how long the hour's lock is held. It does not cover COMMIT.
ACCEPT_SECONDS_MAX = 10.0


class EncodedBatch(NamedTuple):
    """A row of queue.encoded_batches, whose columns it names in their order. `read` decodes it."""

    batch_id: BatchId
    received_at: datetime
    lane: str
    events: int
    tenant_ids: bytes
    event_ids: bytes
    client_ats: bytes
    types: bytes
    lengths: bytes
    received_ats: bytes | None
    envelope_of: list[int] | None
    envelopes: list[bytes] | None
    codec: str
    payload: bytes
    epoch: int
    is_shadow: bool


@dataclass(frozen=True, slots=True)
class Work:
    """A range of a batch that is claimed, or a whole batch that is read (work_id is then 0)."""

    work_id: WorkId
    first_event: int
    end_event: int
    deaths: int
    batch: EncodedBatch

    @property
    def lane(self) -> Lane:
        return Lane(self.batch.lane)

    @property
    def events(self) -> int:
        return self.end_event - self.first_event

    @property
    def bytes(self) -> int:
        """The bytes of its events and of an envelope for each, as the query `claim` counts them."""
        around = max((len(envelope) for envelope in self.batch.envelopes or ()), default=0)
        return sum(arrays.read_int4s(self.batch.lengths)[self.first_event : self.end_event]) + self.events * around


def _pack(payload: bytes) -> tuple[str, bytes]:
    if len(payload) < _COMPRESS_FROM_BYTES:
        return "plain", payload
    return "zstd", _compressor.compress(payload)


def _unpack(payload: bytes) -> bytes:
    try:
        return _decompressor.decompress(payload)
    except zstandard.ZstdError:
        # A corrupt batch. Its events get no bytes and become dead letters. The batch keeps its payload.
        return b""


def _envelopes(
    accepted: Sequence[AcceptedEvent],
) -> tuple[arrays.BinaryArray | None, arrays.BinaryArray | None]:
    """Each event's 1-based place among the distinct envelopes, and these. None if no event has one."""
    places: dict[bytes, int] = {}
    of = [places.setdefault(event.envelope, len(places) + 1) if event.envelope else 0 for event in accepted]
    if not places:
        return None, None
    return arrays.int4s(of), arrays.byteas(list(places))


def batch_params(accepted: Sequence[AcceptedEvent]) -> tuple[Any, ...]:
    """The nine columns of a batch that come from its events: tenant_ids to payload, in the table's order."""
    codec, payload = _pack(b"".join([event.payload for event in accepted]))
    envelope_of, envelopes = _envelopes(accepted)
    return (
        arrays.int4s([event.tenant_id for event in accepted]),
        arrays.uuids([event.event_id for event in accepted]),
        arrays.timestamps([event.client_at for event in accepted]),
        arrays.chars("".join([event.type.code for event in accepted])),
        arrays.int4s([len(event.payload) for event in accepted]),
        envelope_of,
        envelopes,
        codec,
        payload,
    )


def rejected_params(rejected: Sequence[RejectedEvent]) -> tuple[Any, ...]:
    """The five arrays of quarantined events: tenant_ids, message_ids, codes, messages, payloads."""
    return (
        arrays.int4s([event.tenant_id for event in rejected]),
        arrays.texts([event.message_id for event in rejected]),
        arrays.texts([event.code for event in rejected]),
        arrays.texts([event.message for event in rejected]),
        arrays.byteas([event.payload for event in rejected]),
    )


def accept(
    execute: Callable[[LiteralString, tuple[Any, ...]], T],
    lane: Lane,
    accepted: Sequence[AcceptedEvent],
    rejected: Sequence[RejectedEvent],
) -> T:
    """Write all of these events into the queue and the quarantine in one statement.

    execute: runs a statement with parameters, for example the method of a connection. What it returns is returned: a
    row of batch_id and received_at, both null if `accepted` is empty, or an awaitable of that. Raises its errors.
    """
    return execute(_SQL["accept"], (lane.value, *batch_params(accepted), *rejected_params(rejected)))


def work_of(row: tuple[Any, ...]) -> Work:
    """A row of the claiming queries: the columns of the work, then those of its batch."""
    work_id, first_event, end_event, deaths, *batch = row
    return Work(work_id, first_event, end_event, deaths, EncodedBatch(*batch))


def batch_of(row: Sequence[Any]) -> Work:
    """A row of queue.encoded_batches."""
    batch = EncodedBatch(*row)
    return Work(WorkId(0), 0, batch.events, 0, batch)


def claim(
    conn: psycopg.Connection[Any],
    lane: Lane,
    limit: int,
    low_water: int,
    events_max: int = 1 << 30,
    waited_s: float = 0.0,
    bytes_max: int = CLAIM_BYTES_MAX,
) -> list[Work]:
    """Lock up to `limit` waiting pieces of work of a lane, oldest first, skipping what others hold.

    low_water: no open work has a smaller id (see LowWater). 0 is always correct, but slower. events_max, bytes_max:
    work after so many events or bytes is not returned. It stays locked until the transaction ends. waited_s: only work
    that was accepted at least so long ago.
    """
    cursor = conn.cursor(binary=True)
    params = {
        "lane": lane.value,
        "limit": limit,
        "low_water": low_water,
        "events_max": events_max,
        "waited_s": waited_s,
        "bytes_max": bytes_max,
    }
    cursor.execute(_SQL["claim"], params, prepare=True)
    return [work_of(row) for row in cursor]


def is_full(works: Sequence[Work]) -> bool:
    """Whether a claim ended because of its bytes, so that more work may wait."""
    return sum(work.bytes for work in works) >= CLAIM_BYTES_MAX


def claim_suspect(conn: psycopg.Connection[Any]) -> list[Work]:
    """Lock one piece of work whose worker died before. It is processed alone."""
    return [work_of(row) for row in conn.cursor(binary=True).execute(_SQL["claim_suspect"])]


def claim_hour(conn: psycopg.Connection[Any], hour: datetime, limit: int) -> list[Work]:
    """Lock up to `limit` waiting pieces of work of one hour of received_at, in any lane, and up to CLAIM_BYTES_MAX."""
    cursor = conn.cursor(binary=True).execute(
        _SQL["claim_hour"], {"hour": hour, "limit": limit, "bytes_max": CLAIM_BYTES_MAX}
    )
    return [work_of(row) for row in cursor]


def read(work: Work) -> list[QueuedEvent]:
    """The events of a piece of work, in the order in which they were accepted."""
    batch, lane = work.batch, work.lane
    wanted = slice(work.first_event, work.end_event)
    sizes = arrays.read_int4s(batch.lengths)
    starts = [0, *accumulate(sizes)]
    body = batch.payload if batch.codec == "plain" else _unpack(batch.payload)
    own_received_ats = arrays.read_timestamps(batch.received_ats) if batch.received_ats else [None] * len(sizes)
    envelopes = batch.envelopes or []
    around = [b"" if not place else envelopes[place - 1] for place in batch.envelope_of or [0] * len(sizes)]
    columns = zip(
        arrays.read_int4s(batch.tenant_ids)[wanted],
        arrays.read_uuids(batch.event_ids)[wanted],
        arrays.read_chars(batch.types)[wanted],
        arrays.read_timestamps(batch.client_ats)[wanted],
        own_received_ats[wanted],
        around[wanted],
        range(work.first_event, work.end_event),
        strict=True,
    )
    return [
        QueuedEvent(
            tenant_id=TenantId(tenant_id),
            event_id=event_id,
            type=EventType.of_code(code),
            client_at=client_at,
            received_at=own_received_at or batch.received_at,
            payload=body[starts[index] : starts[index + 1]],
            envelope=envelope,
            lane=lane,
            batch_id=batch.batch_id,
            event_index=index,
            batch_received_at=batch.received_at,
            epoch=batch.epoch,
            is_shadow=batch.is_shadow,
            is_imported=own_received_at is not None,
        )
        for tenant_id, event_id, code, client_at, own_received_at, envelope, index in columns
    ]


def complete(conn: psycopg.Connection[Any], works: Sequence[Work]) -> None:
    """Remove finished work. It commits with the caller's load. All works are of one lane or the caller groups them."""
    for lane in {work.lane for work in works}:
        conn.execute(
            _SQL["complete"],
            (lane.value, [work.work_id for work in works if work.lane == lane]),
            prepare=True,
        )


def split(conn: psycopg.Connection[Any], work: Work, events: int) -> None:
    """Replace a piece of work by parts of at most `events` events. All parts keep its deaths."""
    conn.execute(_SQL["split"], {"lane": work.lane.value, "work_id": work.work_id, "events": events})
