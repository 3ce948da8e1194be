"""Archives hours that are past retention, verifies their files and restores hours.

While the setting archive_url is on, the keeper and Dagster's retention drop only archived hours; nothing here drops
hours. An hour that cannot be archived stays, with an open alert. After an operator has made the address usable,
`pipeline-platform archive run` or the next hourly run of retention_job archives it.

A restored hour has its batches again, with their ids and times, and no work. Its account is the one it had when it was
dropped, and a replay can read it. Its retention starts again, and then it is dropped again.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform import arrays, stores
from pipeline_platform.archive import files
from pipeline_platform.archive.hold import exclusively
from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError, NoSuchThingError, PipelineError
from pipeline_platform.event.types import AcceptedEvent, QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.queue.batches import batch_of, batch_params, read
from pipeline_platform.settings import Settings

_SQL = queries("archive")
_BATCHES_AT_ONCE = 100

Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Archived:
    """One hour. error: why it could not be archived, or how it differs from the record."""

    hour: datetime
    address: str
    events: int = 0
    bytes: int = 0
    error: str | None = None


def due_hours(conn: Conn, settings: Settings) -> list[datetime]:
    """Hours past retention that are not archived in their current state."""
    return [hour for (hour,) in conn.execute(_SQL["due"], {"retention": settings.retention})]


def archive_hours(
    conn: Conn, settings: Settings, hours: list[datetime], on_hour: Callable[[Archived], None] = lambda _: None
) -> list[Archived]:
    """Archive hours independently of each other: one that fails opens an alert and does not stop the others.

    conn: in autocommit mode, without a statement time-out. ConfigError if archives are off.
    """
    if not settings.archive_url:
        raise ConfigError("archives are off: set PIPELINE_ARCHIVE_URL to a directory or an address (s3://…)")
    done: list[Archived] = []
    for hour in hours:
        place = f"{root_of(settings)}/{hour:%Y/%m/%d/%H}"
        try:
            with exclusively(conn), _held(conn, hour):
                archived = _archive(conn, hour, place)
        except PipelineError as error:
            archived = Archived(hour, place, error=str(error))
            message = f"hour {hour.isoformat()} cannot be archived, and stays: {error}"
            conn.execute(_SQL["alert"], {"hour": hour.isoformat(), "message": message})
        else:
            conn.execute(_SQL["resolve_alert"], {"hour": hour.isoformat()})
        done.append(archived)
        on_hour(archived)
    return done


def root_of(settings: Settings) -> str:
    """The root address of archives."""
    return stores.root(settings.archive_url)


@contextmanager
def _held(conn: Conn, hour: datetime) -> Generator[None]:
    conn.execute(_SQL["hold_hour"], {"hour": hour})
    try:
        yield
    finally:
        if not conn.closed:
            conn.rollback()
            conn.execute(_SQL["release_hour"], {"hour": hour})


def _archive(conn: Conn, hour: datetime, place: str) -> Archived:
    """Write the file, then the record that names it, then remove what it replaced.

    So the record names a verified file, at whatever point the process is killed.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        sealed_at, seals, dropped_at = conn.execute(_SQL["hour"], {"hour": hour}).fetchone() or (None, None, None)
        records = list_archives(conn, hour)
        if dropped_at and records and records[0]["seals"] == seals:
            # It was archived and dropped after it was requested.
            return Archived(hour, records[0]["address"], records[0]["events"], records[0]["bytes"])
        if sealed_at is None or dropped_at is not None:
            raise PipelineError(f"hour {hour.isoformat()} is not sealed, or was dropped; see: pipeline-platform status")
        tenants = dict(conn.execute(_SQL["tenant_names"]).fetchall())
        written = files.write(place, _events(conn, hour), tenants)
        reach("archive.before_note")
        conn.execute(_SQL["note"], asdict(written) | {"hour": hour, "seals": seals})
    reach("archive.after_note")
    files.remove_others(written.address)
    for row in records:
        if row["address"] != written.address:
            stores.remove(row["address"])
    return Archived(hour, written.address, written.events, written.bytes)


def _events(conn: Conn, hour: datetime) -> Iterator[QueuedEvent]:
    with conn.cursor("archived_batches", binary=True) as cursor:
        cursor.itersize = _BATCHES_AT_ONCE
        cursor.execute(_SQL["batches"], {"hour": hour})
        for row in cursor:
            yield from read(batch_of(row))


def list_archives(conn: Conn, hour: datetime | None = None) -> list[dict[str, Any]]:
    """The records of all archives, or of one hour."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL["list"], {"hour": hour}).fetchall()


def verify(conn: Conn, hour: datetime | None = None) -> list[Archived]:
    """Read the files of all archives, or of one hour, and compare size, hash and count with the record."""
    found: list[Archived] = []
    for row in list_archives(conn, hour):
        error = None
        try:
            with exclusively(conn):
                check(row)
                conn.execute(_SQL["verified"], row)
        except PipelineError as wrong:
            error = str(wrong)
        found.append(Archived(row["hour"], row["address"], row["events"], row["bytes"], error))
    return found


def restore(conn: Conn, hour: datetime, reason: str) -> int:
    """Restore a dropped hour to the queue for a replay; returns its number of events.

    conn: in autocommit mode, without a statement time-out. NoSuchThingError if it has no archive; PipelineError if it
    is still kept or its file is damaged.
    """
    with exclusively(conn):
        records = list_archives(conn, hour)
        if not records:
            raise NoSuchThingError(f"hour {hour.isoformat()} is in no archive; see: pipeline-platform archive list")
        row = records[0]
        check(row)
        with conn.transaction():
            if conn.execute(_SQL["restore_hour"], {"hour": hour}).fetchone() != (True,):
                raise PipelineError(f"hour {hour.isoformat()} is still kept: replay it as it is")
            events = 0
            for batch in files.batches(files.read(row["address"])):
                conn.execute(_SQL["restore_batch"], _batch_params(batch))
                events += len(batch)
            conn.execute(_SQL["recall_hour"], {"hour": hour})
            reach("archive.mid_restore")
            note(conn, "archive restore", reason, {"hour": hour.isoformat(), "events": events})
    return events


def _batch_params(batch: list[QueuedEvent]) -> tuple[Any, ...]:
    first = batch[0]
    own_times = [event.received_at for event in batch]
    return (
        first.batch_id,
        first.batch_received_at,
        first.lane.value,
        len(batch),
        None if set(own_times) == {first.batch_received_at} else arrays.timestamps(own_times),
        first.epoch,
        *batch_params(as_accepted(batch)),
    )


def as_accepted(events: list[QueuedEvent]) -> list[AcceptedEvent]:
    """The events in the form that batch_params encodes."""
    return [
        AcceptedEvent(event.tenant_id, event.event_id, event.type, event.client_at, event.payload, event.envelope)
        for event in events
    ]


def check(row: dict[str, Any]) -> None:
    """PipelineError if an archive's file differs from the record."""
    found = files.weigh(row["address"])
    if (found.events, found.bytes, found.sha256) != (row["events"], row["bytes"], row["sha256"]):
        raise PipelineError(f"{row['address']} is not the file that was archived: it was changed, or is damaged")
