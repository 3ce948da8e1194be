"""One hour as one Parquet file, one row for each event, at any address that fsspec knows (a path, s3://…, memory://…).

A file is read back before it gets its name, and its hash is part of the name. A file never changes: its replacement is
a second file, until the record names the new one. Reading and writing hold one group of rows in memory.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any
from uuid import UUID

import pyarrow
import pyarrow.parquet

from pipeline_platform import stores
from pipeline_platform.errors import PipelineError
from pipeline_platform.event.types import BatchId, EventType, Lane, QueuedEvent, TenantId

# pyarrow has no type hints.
pa: Any = pyarrow
pq: Any = pyarrow.parquet

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("batch_id", pa.int64()),
        ("event_index", pa.int32()),
        ("batch_received_at", _TIME),
        ("lane", pa.string()),
        ("epoch", pa.int32()),
        ("tenant_id", pa.int32()),
        ("tenant", pa.string()),
        ("event_id", pa.binary(16)),
        ("type", pa.string()),
        ("client_at", _TIME),
        ("received_at", _TIME),
        # The original bytes; empty if the event was erased.
        ("payload", pa.binary()),
        ("envelope", pa.binary()),
    ]
)
_GROUP_EVENTS = 20_000


@dataclass(frozen=True, slots=True)
class Written:
    """A file: its address, its number of events, its size and its SHA-256."""

    address: str
    events: int
    bytes: int
    sha256: str


class _Content:
    """A count and a digest of events, equal for the same events in the same order."""

    def __init__(self) -> None:
        self.events = 0
        self._digest = hashlib.sha256()

    def add(self, event: QueuedEvent) -> None:
        self.events += 1
        facts = (
            event.batch_id,
            event.event_index,
            event.batch_received_at.isoformat(),
            event.lane.value,
            event.epoch,
            event.tenant_id,
            event.event_id,
            event.type.value,
            event.client_at and event.client_at.isoformat(),
            event.received_at.isoformat(),
            len(event.payload),
            len(event.envelope),
        )
        self._digest.update(repr(facts).encode() + event.payload + event.envelope)

    def seal(self) -> tuple[int, str]:
        return self.events, self._digest.hexdigest()


def write(place: str, events: Iterable[QueuedEvent], tenants: Mapping[int, str]) -> Written:
    """Write all events, batch after batch, and verify the file.

    place: its address without `-HASH.parquet`. tenants: names by id. PipelineError if it cannot be written or differs
    when it is read back; other files are not touched.
    """
    sent, content = _Content(), _Content()
    unfinished = f"{place}{stores.UNFINISHED}"
    with stores.reachable(place):
        with stores.new_file(unfinished) as file:
            _write(file, events, tenants, sent)
        for event in read(unfinished):
            content.add(event)
        if content.seal() != sent.seal():
            raise PipelineError(f"{unfinished} was read back with other content than was written: run it again")
        written = weigh(unfinished)
        address = f"{place}-{written.sha256[:16]}.parquet"
        stores.rename(unfinished, address)
        moved = weigh(address)
    if (moved.bytes, moved.sha256) != (written.bytes, written.sha256):
        raise PipelineError(f"{address} is not what was written: run it again")
    return moved


def remove_others(address: str) -> None:
    """Remove the other files of the hour: those that this file replaced, and those of a killed writer."""
    place = address.rpartition("-")[0]
    with stores.reachable(place):
        system, path = stores.place(address)
        for pattern in (f"{place}-*.parquet", f"{place}{stores.UNFINISHED}"):
            for other in system.glob(stores.place(pattern)[1]):
                if other != path:
                    system.rm(other)


def remove_unfinished(root: str) -> None:
    """Remove unfinished files of killed writers below an address, of hours that are in no file yet."""
    with stores.reachable(root):
        system, path = stores.place(root)
        for left in system.glob(f"{path}/**/*{stores.UNFINISHED}"):
            system.rm(left)


def read(address: str) -> Iterator[QueuedEvent]:
    """All events of a file, batch after batch. PipelineError if it cannot be read."""
    with stores.reachable(address):
        system, path = stores.place(address)
        with system.open(path, "rb") as file:
            for rows in pq.ParquetFile(file).iter_batches(batch_size=_GROUP_EVENTS):
                yield from map(_event, rows.to_pylist())


def read_tenant(address: str, tenant_id: int) -> list[QueuedEvent]:
    """One tenant's events of a file."""
    return [event for event in read(address) if event.tenant_id == tenant_id]


def batches(events: Iterable[QueuedEvent]) -> Iterator[list[QueuedEvent]]:
    """The events of each batch, in their order."""
    for _, batch in groupby(events, key=lambda event: event.batch_id):
        yield list(batch)


def weigh(address: str) -> Written:
    """A file's size and hash, and the number of events in its metadata."""
    size, digest = stores.weigh(address)
    with stores.reachable(address):
        system, path = stores.place(address)
        with system.open(path, "rb") as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    return Written(address, rows, size, digest)


def _write(file: IO[bytes], events: Iterable[QueuedEvent], tenants: Mapping[int, str], sent: _Content) -> None:
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for event in events:
            sent.add(event)
            rows.append(_row(event, tenants))
            if len(rows) == _GROUP_EVENTS:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def _row(event: QueuedEvent, tenants: Mapping[int, str]) -> dict[str, Any]:
    return {
        "batch_id": event.batch_id,
        "event_index": event.event_index,
        "batch_received_at": event.batch_received_at,
        "lane": event.lane.value,
        "epoch": event.epoch,
        "tenant_id": event.tenant_id,
        "tenant": tenants.get(event.tenant_id),
        "event_id": event.event_id.bytes,
        "type": event.type.value,
        "client_at": event.client_at,
        "received_at": event.received_at,
        "payload": event.payload,
        "envelope": event.envelope,
    }


def _event(row: dict[str, Any]) -> QueuedEvent:
    return QueuedEvent(
        tenant_id=TenantId(row["tenant_id"]),
        event_id=UUID(bytes=row["event_id"]),
        type=EventType(row["type"]),
        client_at=row["client_at"],
        received_at=row["received_at"],
        payload=row["payload"],
        envelope=row["envelope"],
        lane=Lane(row["lane"]),
        batch_id=BatchId(row["batch_id"]),
        event_index=row["event_index"],
        batch_received_at=row["batch_received_at"],
        epoch=row["epoch"],
        # Derived from the epoch when the event is processed.
        is_shadow=False,
    )
