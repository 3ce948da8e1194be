"""The Parquet file of an hour: one row for each delivered event, tenant after tenant, each by time of reception.

Pages have checksums, which are verified when the file is read back. Reading and writing hold one group of rows.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from pipeline_platform import stores
from pipeline_platform.analytics.arrow import EVENT_SCHEMA, batch
from pipeline_platform.analytics.formats import Row

# pyarrow has no type hints.
pa: Any = pyarrow
pq: Any = pyarrow.parquet

SCHEMA_VERSION = 1
SCHEMA = pa.schema([("tenant_id", pa.int32()), ("tenant", pa.string()), *EVENT_SCHEMA])
GROUP_EVENTS = 20_000


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose rows they are."""

    tenant_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Tally:
    """A tenant's number of events, and the SHA-256 of their ids in ascending order (16 bytes each)."""

    events: int
    ids_sha256: str


def write(address: str, portions: Iterable[tuple[Tenant, Sequence[Row]]]) -> None:
    """Write a file. PipelineError if the address cannot be used."""
    unfinished = f"{address}{stores.UNFINISHED}"
    with stores.reachable(address):
        with (
            stores.new_file(unfinished) as file,
            pq.ParquetWriter(file, SCHEMA, compression="zstd", write_page_checksum=True) as writer,
        ):
            for group in _groups(portions):
                writer.write_batch(group)
        stores.rename(unfinished, address)


def tallies(address: str) -> Mapping[int, Tally]:
    """What a file holds, by tenant_id. PipelineError if it cannot be read or a page differs from its checksum."""
    ids: dict[int, list[str]] = defaultdict(list)
    with stores.reachable(address):
        system, path = stores.place(address)
        with system.open(path, "rb") as file:
            # All columns are read, so that every page is verified.
            for rows in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(batch_size=GROUP_EVENTS):
                tenants, events = rows.column("tenant_id").to_pylist(), rows.column("event_id").to_pylist()
                for tenant_id, event_id in zip(tenants, events, strict=True):
                    ids[tenant_id].append(event_id)
    return {tenant_id: Tally(len(found), _digest(found)) for tenant_id, found in ids.items()}


def _groups(portions: Iterable[tuple[Tenant, Sequence[Row]]]) -> Iterator[Any]:
    """Record batches of about GROUP_EVENTS rows, of several tenants if they have few."""
    held: list[tuple[Any, ...]] = []
    for tenant, rows in portions:
        held += [(tenant.tenant_id, tenant.name, *row) for row in rows]
        if len(held) >= GROUP_EVENTS:
            yield batch(SCHEMA, list(zip(*held, strict=True)))
            held = []
    if held:
        yield batch(SCHEMA, list(zip(*held, strict=True)))


def _digest(ids: list[str]) -> str:
    return hashlib.sha256(bytes.fromhex("".join(sorted(ids)).replace("-", ""))).hexdigest()
