"""Writes a file into the queue chunk by chunk; each chunk and its record are one transaction.

A killed import continues when it is run again, with the shift and start of its first run. Locks of its session keep the
hours open that it will write, so that none is sealed half-filled. They are released when the session ends. Events past
retention are not written: they are counted by hour and reported.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from pipeline_platform import arrays
from pipeline_platform.db import connect, queries
from pipeline_platform.errors import DamagedFileError, InvalidEventError, PipelineError
from pipeline_platform.event.client_time import parse_time
from pipeline_platform.event.json_limits import doubts_of
from pipeline_platform.event.ndjson import peek_text, read_object
from pipeline_platform.event.reader import Limits, read_event, rejected_event
from pipeline_platform.event.types import (
    MESSAGE_ID_NAMESPACE,
    AcceptedEvent,
    RejectedEvent,
    TenantId,
)
from pipeline_platform.imports.source import CHUNK_EVENTS, Line, Source, Survey, hour_of
from pipeline_platform.kill_points import reach
from pipeline_platform.queue.batches import ACCEPT_SECONDS_MAX, batch_params, rejected_params
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import ensure_tenant
from pipeline_platform.tenants.tombstones import erased_places

_SQL = queries("imports")
_HOUR = timedelta(hours=1)
Conn = psycopg.Connection[Any]


@dataclass(slots=True)
class ImportResult:
    """What an import did, in events. erased: left out because their persons were erased.

    hours: the file's events within retention, by hour; past_retention: the others.
    """

    import_id: str
    shift_s: float
    accepted: int = 0
    rejected: int = 0
    erased: int = 0
    already_imported: int = 0
    hours: dict[datetime, int] = field(default_factory=dict[datetime, int])
    past_retention: dict[datetime, int] = field(default_factory=dict[datetime, int])
    in_future: int = 0
    bad_lines: int = 0
    bad_line_samples: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a run reads the file: fixed by the first run of this import and the same in every later one."""

    import_id: str
    shift: timedelta
    started_at: datetime
    wanted: frozenset[datetime]
    done: frozenset[tuple[datetime, int]]

    def received_at(self, line: Line) -> datetime:
        return line.received_at + self.shift if line.received_at else self.started_at


def import_file(
    settings: Settings,
    source: Source,
    *,
    shift_to_now: bool,
    dry_run: bool,
    on_total: Callable[[int], None],
    progress: Callable[[int], None],
) -> ImportResult:
    """Import what is missing. PipelineError if the same import runs already; nothing is written then.

    PipelineError also if the file is damaged. A part of a file would be a different import: events without a messageId
    would be imported twice.
    """
    try:
        survey = source.survey(f"shift={shift_to_now}", lambda _: None)
    except DamagedFileError as error:
        raise PipelineError(
            f"{error}: nothing was imported. Repair the file, or import what can be read of it: "
            "gzip -dc FILE | pipeline-platform import - …"
        ) from error
    on_total(survey.events)
    more = f"-c transaction_timeout={int(ACCEPT_SECONDS_MAX * 1000)}"
    with connect(settings.database_url, "import", statement_timeout_s=0, more=more) as conn:
        if conn.execute(_SQL["try_import_lock"], (survey.digest,)).fetchone() == (False,):
            raise PipelineError("this import is running already: wait for it, or stop it; run it again then")
        plan, result = _plan(conn, settings, survey, source.path, shift_to_now, dry_run)
        result.bad_lines, result.bad_line_samples = survey.bad_lines, survey.bad_line_samples
        if not dry_run:
            _hold_hours(conn, plan)
            tenants = {name: ensure_tenant(conn, name) for name in sorted(survey.tenants)} if plan.wanted else {}
            for hour, chunk, lines in _chunks(source, plan):
                # One transaction; an erasure that begins meanwhile waits for it.
                with conn.transaction():
                    _import_chunk(conn, settings, plan, tenants, hour, chunk, lines, result)
                conn.execute(_SQL["wake_workers"])
                reach("import.after_chunk")
                progress(len(lines))
            if not result.past_retention and not result.in_future:
                conn.execute(_SQL["finish_import"], (plan.import_id,))
    return result


def _plan(
    conn: Conn, settings: Settings, survey: Survey, path: str, shift_to_now: bool, dry_run: bool
) -> tuple[_Plan, ImportResult]:
    (now,) = _row(conn.execute(_SQL["now"]))
    # Whole seconds: the survey counts by second and must find the same hours as the chunks.
    shift = (
        timedelta(seconds=(now - survey.last) // timedelta(seconds=1)) if shift_to_now and survey.last else timedelta()
    )
    if not dry_run:
        conn.execute(_SQL["start_import"], (survey.digest, path, shift, now))
    known = conn.execute(_SQL["find_import"], (survey.digest,)).fetchone()
    shift, started_at = known[:2] if known else (shift, now)
    chunks = conn.execute(_SQL["chunks"], (survey.digest,)).fetchall()
    result = ImportResult(survey.digest, shift.total_seconds())
    result.already_imported = sum(accepted + rejected for *_, accepted, rejected in chunks)
    by_hour: dict[datetime, int] = {}
    for second, events in survey.seconds.items():
        hour = hour_of(second + shift if second else started_at)
        by_hour[hour] = by_hour.get(hour, 0) + events
    done = frozenset((hour, chunk) for hour, chunk, *_ in chunks)
    dropped = {hour for (hour,) in conn.execute(_SQL["dropped_hours"])}
    wanted: set[datetime] = set()
    for hour, events in sorted(by_hour.items()):
        missing = [chunk for chunk in range(-(-events // CHUNK_EVENTS)) if (hour, chunk) not in done]
        if hour > now:
            result.in_future += events
        elif missing and (hour + _HOUR + settings.retention <= now or hour in dropped):
            result.past_retention[hour] = events
        else:
            result.hours[hour] = events
            if missing:
                wanted.add(hour)
    return _Plan(survey.digest, shift, started_at, frozenset(wanted), done), result


def _hold_hours(conn: Conn, plan: _Plan) -> None:
    for hour in sorted(plan.wanted):
        conn.execute(_SQL["hold_hour"], (hour,))
        conn.execute(_SQL["reopen_hour"], (hour,))


def _chunks(source: Source, plan: _Plan) -> Iterator[tuple[datetime, int, list[Line]]]:
    """The chunks to write, each hour's lines in the file's order: the same chunks in every run."""
    waiting: dict[datetime, list[Line]] = {hour: [] for hour in plan.wanted}
    numbers = dict.fromkeys(plan.wanted, 0)

    def cut(hour: datetime) -> Iterator[tuple[datetime, int, list[Line]]]:
        number, lines = numbers[hour], waiting[hour]
        numbers[hour], waiting[hour] = number + 1, []
        if lines and (hour, number) not in plan.done:
            yield hour, number, lines

    for line in source.lines(lambda _number, _error: None):
        hour = hour_of(plan.received_at(line))
        if hour in waiting:
            waiting[hour].append(line)
            if len(waiting[hour]) == CHUNK_EVENTS:
                yield from cut(hour)
    for hour in sorted(waiting):
        yield from cut(hour)


def _import_chunk(
    conn: Conn,
    settings: Settings,
    plan: _Plan,
    tenants: dict[str, int],
    hour: datetime,
    chunk: int,
    lines: list[Line],
    result: ImportResult,
) -> None:
    accepted: list[AcceptedEvent] = []
    rejected: list[tuple[datetime, RejectedEvent]] = []
    limits = Limits.of(settings)
    erased = erased_places(
        conn,
        [tenants[line.tenant] for line in lines],
        [line.payload for line in lines],
        [plan.received_at(line) for line in lines],
    )
    for position, line in enumerate(lines):
        if position in erased:
            continue
        tenant_id = TenantId(tenants[line.tenant])
        at = plan.received_at(line)
        name = f"{plan.import_id}:{hour.isoformat()}:{chunk}:{position}"
        try:
            accepted.append(_event(line, tenant_id, limits, at, plan.shift, name))
        except InvalidEventError as error:
            rejected.append((at, rejected_event(line.payload, tenant_id, limits, error)))
    reach("import.before_chunk")
    # Sorted by time: the batch's received_at is that of its first event.
    accepted.sort(key=lambda event: event.received_at or hour)
    params = (
        plan.import_id,
        hour,
        chunk,
        arrays.timestamps([event.received_at for event in accepted]),
        *batch_params(accepted),
        arrays.timestamps([at for at, _ in rejected]),
        *rejected_params([event for _, event in rejected]),
    )
    if conn.execute(_SQL["import_batch"], params).fetchone() == (True,):
        result.accepted += len(accepted)
        result.rejected += len(rejected)
        result.erased += len(erased)


def _event(line: Line, tenant_id: TenantId, limits: Limits, at: datetime, shift: timedelta, name: str) -> AcceptedEvent:
    """The event of a line. Without a messageId its position in the import is its identity."""

    def make_id() -> uuid.UUID:
        return uuid.uuid5(MESSAGE_ID_NAMESPACE, name)

    event = read_event(line.payload, tenant_id, limits, doubts_of(line.payload), make_id, received_at=at)
    if event.client_at is None or not shift:
        return event
    # A shift applies to all times of an event, including its own times.
    client_at, envelope = _moved(event.client_at, shift), _moved_envelope(line.payload, shift)
    return AcceptedEvent(event.tenant_id, event.event_id, event.type, client_at, event.payload, envelope, at)


def _moved(at: datetime, shift: timedelta) -> datetime | None:
    try:
        return at + shift
    except OverflowError:
        return None


def _moved_envelope(payload: bytes, shift: timedelta) -> bytes:
    """The envelope with an event's own sentAt shifted. It takes precedence over the payload, which is unchanged."""
    if b'"sentAt"' not in payload:
        return b""
    sent_at = parse_time(peek_text(read_object(payload).get("sentAt")) or "")
    moved = _moved(sent_at, shift) if sent_at else None
    return b'{"sentAt":"%s"}' % moved.isoformat().encode() if moved else b""


def _row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise PipelineError("the database gave no answer")
    return row
