"""One hour as one Parquet file, one row for each event, at any address that fsspec knows (a path, s3://…, memory://…).

A file is read back before it gets its name, and its hash is part of the name. A file never changes: its replacement is
a second file, until the record names the new one. Reading and writing hold one group of rows in memory.
"""

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any
from uuid import UUID

import fsspec.core
import pyarrow
import pyarrow.parquet
from fsspec.implementations.local import LocalFileSystem

from pipeline_platform.errors import PipelineError
from pipeline_platform.event.types import BatchId, EventType, Lane, QueuedEvent, TenantId

# Neither library has type hints.
pa: Any = pyarrow
pq: Any = pyarrow.parquet
fs: Any = fsspec.core

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
_PIECE_BYTES = 1 << 20
_UNFINISHED = ".unfinished"


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
    unfinished = f"{place}{_UNFINISHED}"
    with _reachable(place):
        system, unfinished_path = _place(unfinished)
        system.makedirs(unfinished_path.rpartition("/")[0], exist_ok=True)
        with system.open(unfinished_path, "wb") as file:
            _write(file, events, tenants, sent)
        for event in read(unfinished):
            content.add(event)
        if content.seal() != sent.seal():
            raise PipelineError(f"{unfinished} was read back with other content than was written: run it again")
        written = weigh(unfinished)
        address = f"{place}-{written.sha256[:16]}.parquet"
        _, path = _place(address)
        system.mv(unfinished_path, path)
        _make_durable(system, path)
        moved = weigh(address)
    if (moved.bytes, moved.sha256) != (written.bytes, written.sha256):
        raise PipelineError(f"{address} is not what was written: run it again")
    return moved


def remove_others(address: str) -> None:
    """Remove the other files of the hour: those that this file replaced, and those of a killed writer."""
    place = address.rpartition("-")[0]
    with _reachable(place):
        system, path = _place(address)
        for pattern in (f"{place}-*.parquet", f"{place}{_UNFINISHED}"):
            for other in system.glob(_place(pattern)[1]):
                if other != path:
                    system.rm(other)


def remove_unfinished(root: str) -> None:
    """Remove unfinished files of killed writers below an address, of hours that are in no file yet."""
    with _reachable(root):
        system, path = _place(root)
        for left in system.glob(f"{path}/**/*{_UNFINISHED}"):
            system.rm(left)


def remove(address: str) -> None:
    """Remove a file if it exists."""
    with _reachable(address):
        system, path = _place(address)
        if system.exists(path):
            system.rm(path)


def read(address: str) -> Iterator[QueuedEvent]:
    """All events of a file, batch after batch. PipelineError if it cannot be read."""
    with _reachable(address):
        system, path = _place(address)
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
    digest, size = hashlib.sha256(), 0
    with _reachable(address):
        system, path = _place(address)
        with system.open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
        with system.open(path, "rb") as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    return Written(address, rows, size, digest.hexdigest())


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


def _place(address: str) -> tuple[Any, str]:
    return fs.url_to_fs(address)


def _make_durable(system: Any, path: str) -> None:
    """Flush a local file to disk, so that it survives a power loss; other stores answer after they stored it."""
    if not isinstance(system, LocalFileSystem):
        return
    for place in (path, path.rpartition("/")[0]):
        number = os.open(place, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def _reachable(address: str) -> Generator[None]:
    """Turn every error of a file system into a PipelineError: the archive cannot be used now."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        # Each store has its own errors.
        raise PipelineError(f"archive {address}: {type(error).__name__}: {error}") from error
