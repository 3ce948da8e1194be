"""Diffs, commits or undoes one chunk of a replay in one transaction, in the replay lane's share of a worker.

replay.chunks has each chunk and its progress, so any worker can continue where another died. How often a chunk was
taken is committed before the work, because a death leaves no other trace. A chunk that keeps killing its workers
pauses its replay with an alert. So does a chunk whose batches hold less than was planned: a diff that did not read all
of an hour is not valid.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg

from pipeline_platform import arrays
from pipeline_platform.db import in_schema, queries
from pipeline_platform.errors import PipelineError, is_bad_data, is_transient
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.halving import Halves
from pipeline_platform.kill_points import reach
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import batch_of, read
from pipeline_platform.worker.engine import transform_all
from pipeline_platform.worker.enrich import enrich
from pipeline_platform.worker.load import enriched_columns, row_columns
from pipeline_platform.worker.transform import TRANSFORM_VERSION, Row, Transform, transform

_SQL, _DIFF, _WRITE = queries("replay_chunk"), queries("replay_diff"), queries("replay_commit")
_TIMES_TAKEN_MAX = 5
_Pair = tuple[QueuedEvent, Row]


def _in_both(*names: str) -> Sequence[LiteralString]:
    """Statements for the rows of analytics, then those for the rows of shadow."""
    return [in_schema(_WRITE[name], schema) for schema in ("analytics", "shadow") for name in names]


_COMMIT: Sequence[LiteralString] = [
    _WRITE["hold_letters"],
    _WRITE["keep_accepted"],
    *_in_both("take_out", "put_changed", "put_added"),
]
_UNDO: Sequence[LiteralString] = [_WRITE["undo_keep_newer"], *_in_both("undo_take_out", "undo_put_back")]


class _KeysInUseError(Exception):
    """The locks of a chunk are held for long, for example by a restored archive. The chunk is tried again later."""


class UnreadableHourError(PipelineError):
    """Batches of an hour are missing. The replay is paused, and its diff stays incomplete."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of replay.chunks with the options of its replay."""

    replay_id: int
    chunk: int
    hour: datetime
    is_sweep: bool
    first_batch: int
    last_batch: int
    events: int
    times_taken: int
    state: str
    window_start: datetime
    window_end: datetime
    tenant_ids: list[int] | None
    types: list[str] | None
    only_missing: bool
    takes_newer: bool

    @property
    def entrance(self) -> LiteralString:
        """The query that takes its locks. It enters alone if it looks for identities and may delete identity keys."""
        if self.state == "undoing" or (self.state == "committing" and self.is_sweep):
            return _SQL["enter_alone"]
        return _SQL["enter"]

    def wants(self, event: QueuedEvent) -> bool:
        return (
            self.window_start <= event.received_at < self.window_end
            and (self.tenant_ids is None or event.tenant_id in self.tenant_ids)
            and (self.types is None or event.type.value in self.types)
        )


class Replaying:
    """Works on a worker's own connection. `transform` makes the rows. Not for use by several threads."""

    def __init__(self, conn: psycopg.Connection[Any], lookups: Lookups, transform: Transform = transform) -> None:
        self._conn = conn
        self._lookups = lookups
        self._row_of = transform

    def note_transform(self) -> None:
        """Store which version of the transform makes rows from now on."""
        self._conn.execute(_SQL["note_transform"], {"version": TRANSFORM_VERSION})

    def state_of_lane(self) -> tuple[bool, float | None, float | None]:
        """Whether a replay has work to do, and the lane's share and cap if they were set while it ran."""
        return self._conn.execute(_SQL["state_of_lane"]).fetchone() or (False, None, None)

    def step(self) -> int:
        """Do the next chunk. Returns its number of events plus one, 0 if there is none. Raises psycopg errors."""
        row = self._conn.execute(_SQL["take"]).fetchone()
        if row is None:
            self._conn.execute(_SQL["finish"])
            return 0
        chunk = Chunk(*row)
        params = asdict(chunk)
        reach("replay.after_take")
        if chunk.times_taken > _TIMES_TAKEN_MAX:
            why = f"{chunk.times_taken - 1} workers died of its chunk {chunk.chunk}"
            self._conn.execute(_SQL["pause"], params | {"why": why})
            return 0
        try:
            with self._conn.transaction():
                self._enter(chunk)
                held = self._conn.execute(_SQL["hold"], params).fetchone()
                if held and held[0]:
                    read = self._work(chunk, params)
                    reach("replay.before_commit")
                    self._conn.execute(_SQL["chunk_done"], params | {"read_events": read})
                else:
                    self._conn.execute(_SQL["give_back"], params)
        except UnreadableHourError as error:
            self._conn.execute(_SQL["give_back"], params)
            self._conn.execute(_SQL["pause"], params | {"why": str(error)})
            return 0
        except _KeysInUseError:
            self._conn.execute(_SQL["give_back"], params)
            return 0
        except psycopg.Error as error:
            if is_transient(error) and not self._conn.closed:
                self._conn.execute(_SQL["give_back"], params)
            raise
        reach("replay.after_commit")
        self._conn.execute(_SQL["finish"])
        return chunk.events + 1

    def _enter(self, chunk: Chunk) -> None:
        try:
            self._conn.execute(chunk.entrance)
        except psycopg.errors.LockNotAvailable as error:
            raise _KeysInUseError from error

    def _work(self, chunk: Chunk, params: dict[str, Any]) -> int:
        """Returns how many events a diff read. 0 for a sweep, because its hour's other chunks read them."""
        if chunk.state == "diffing":
            return self._sweep(chunk, params) if chunk.is_sweep else self._diff(chunk, params)
        self._conn.execute(_WRITE["by_index"])
        for statement in _COMMIT if chunk.state == "committing" else _UNDO:
            self._conn.execute(statement, params)
        self._conn.execute(_WRITE["mark_rollups"], params)
        self._conn.execute(_WRITE["keep_traits"], params)
        if chunk.state == "committing":
            self._conn.execute(_WRITE["note_seen"], params)
            self._conn.execute(_WRITE["count_chunk"], params)
        return 0

    def _sweep(self, chunk: Chunk, params: dict[str, Any]) -> int:
        self._conn.execute(_DIFF["hold_hour"], params)
        row = self._conn.execute(_DIFF["proof"], params).fetchone()
        assert row
        planned, read, kept, missing, is_kept = row
        if not is_kept or min(read, kept) < planned or missing:
            raise _unreadable(chunk, min(read, kept), max(planned, kept + missing))
        self._conn.execute(_DIFF["sweep"], params)
        return 0

    def _diff(self, chunk: Chunk, params: dict[str, Any]) -> int:
        found = self._read(params)
        if len(found) < chunk.events:
            raise _unreadable(chunk, len(found), chunk.events)
        events = [event for event in found if chunk.wants(event)]
        gone = self._erased(params) if any(not event.payload for event in events) else set[tuple[int, int]]()
        kept = [event for event in events if (event.batch_id, event.event_index) not in gone]
        rows, failures = transform_all(kept, self._row_of)
        bad = [failed.event for failed in failures] + self._compare(params, rows, _firsts(rows))
        erased = [event for event in events if (event.batch_id, event.event_index) in gone]
        if bad or erased:
            self._count_failed(params, bad, erased)
        return len(found)

    def _read(self, params: dict[str, Any]) -> list[QueuedEvent]:
        cursor = self._conn.cursor(binary=True).execute(_DIFF["batches"], params)
        return [event for row in cursor for event in read(batch_of(row))]

    def _erased(self, params: dict[str, Any]) -> set[tuple[int, int]]:
        return set(self._conn.execute(_DIFF["erased"], params).fetchall())

    def _compare(self, params: dict[str, Any], rows: Sequence[_Pair], firsts: Sequence[bool]) -> list[QueuedEvent]:
        """Keep the rows that differ. Returns the events whose rows PostgreSQL rejects, found by halving."""
        bad: list[QueuedEvent] = []
        parts = Halves(range(len(rows)))
        for part in parts:
            places = slice(part[0], part[-1] + 1)
            try:
                with self._conn.transaction():
                    self._keep(params, rows[places], firsts[places])
            except psycopg.Error as error:
                if not is_bad_data(error):
                    raise
                if not parts.split(part):
                    bad.append(rows[part[0]][0])
        return bad

    def _keep(self, params: dict[str, Any], rows: Sequence[_Pair], firsts: Sequence[bool]) -> None:
        columns = row_columns(rows) | {
            "place": arrays.int4s(list(range(len(rows)))),
            "event_index": arrays.int4s([event.event_index for event, _ in rows]),
            "is_first": arrays.bools(firsts),
            "is_shadow": arrays.bools([event.is_shadow for event, _ in rows]),
        }
        places = self._conn.execute(_DIFF["compare"], params | columns, prepare=True).fetchall()
        added: list[_Pair] = [rows[place] for (place,) in places]
        if added:
            enriched = enrich(self._conn, self._lookups, added)
            shadow = arrays.bools([event.is_shadow for event, _ in added])
            self._conn.execute(_DIFF["keep_added"], params | enriched_columns(enriched) | {"is_shadow": shadow})

    def _count_failed(self, params: dict[str, Any], bad: Sequence[QueuedEvent], erased: Sequence[QueuedEvent]) -> None:
        failed, discarded = Counter(e.tenant_id for e in bad), Counter(e.tenant_id for e in erased)
        tenants = sorted(failed.keys() | discarded.keys())
        counts = {
            "tenant_id": tenants,
            "failed": [failed[tenant] for tenant in tenants],
            "discarded": [discarded[tenant] for tenant in tenants],
        }
        self._conn.execute(_DIFF["count_failed"], params | counts)


def _unreadable(chunk: Chunk, read: int, planned: int) -> UnreadableHourError:
    return UnreadableHourError(
        f"its diff found {read:,} of {planned:,} events of the hour {chunk.hour:%Y-%m-%dT%H:%MZ}, whose batches are "
        f"not all kept; cancel it (pipeline-platform replay cancel {chunk.replay_id}) and plan again"
    )


def _firsts(rows: Sequence[_Pair]) -> list[bool]:
    """Which rows are the first of their identity within the chunk. The others are duplicates."""
    seen: set[tuple[int, int]] = set()
    keys = [(event.tenant_id, event.event_id.int) for event, _ in rows]
    return [not (key in seen or seen.add(key)) for key in keys]
