"""One step of processing: a claim is transformed, enriched, loaded, counted and completed in one transaction.

A crash anywhere rolls all of it back. Bad data does not affect other events: the claim is processed again and split
until only the bad events remain, and those become dead letters. Transient errors are raised to the caller, which
waits; nothing is counted against the events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.dead_letters.store import FailedIn, Failure, bury, failure
from pipeline_platform.errors import is_bad_data
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.halving import Halves
from pipeline_platform.kill_points import reach
from pipeline_platform.lookups import LookupKey, Lookups
from pipeline_platform.queue.batches import Work, complete, read
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import row_numbers
from pipeline_platform.worker.enrich import Enriched, enrich
from pipeline_platform.worker.load import keep_traits, load, new_rows, subjects_of
from pipeline_platform.worker.transform import Row, Transform, transform

# For an engine's connection. Planning the load each time costs a millisecond, more than loading three events. A generic
# plan does not know the sizes, so it must not join two inputs by a nested loop. A plan that was made while a table was
# tiny is kept while the table grows, so it must not read whole tables.
PLANNING = "-c plan_cache_mode=force_generic_plan -c enable_nestloop=off -c enable_seqscan=off -c jit=off"

Claim = Callable[[psycopg.Connection[Any]], list[Work]]


@dataclass(frozen=True, slots=True)
class Processed:
    """The result of one step, in events."""

    claimed: int = 0
    delivered: int = 0
    duplicate: int = 0
    dead_lettered: int = 0

    def __add__(self, other: "Processed") -> "Processed":
        return Processed(
            self.claimed + other.claimed,
            self.delivered + other.delivered,
            self.duplicate + other.duplicate,
            self.dead_lettered + other.dead_lettered,
        )


@dataclass(frozen=True, slots=True)
class _Loading:
    """A load in progress. Its count can be read after the pipeline has ended."""

    works: Sequence[Work]
    rows: Sequence[Enriched]
    failures: Sequence[Failure]
    dead_lettered: int
    changed: Sequence[LookupKey]
    cursors: Sequence[psycopg.Cursor[Any]]

    def processed(self) -> Processed:
        return _processed(self.works, self.rows, self.dead_lettered, new_rows(self.cursors))


def transform_all(
    events: Sequence[QueuedEvent], transform: Transform = transform
) -> tuple[list[tuple[QueuedEvent, Row]], list[Failure]]:
    """Every event's row, or its failure. An error of one event does not affect the others."""
    rows: list[tuple[QueuedEvent, Row]] = []
    failures: list[Failure] = []
    for event in events:
        try:
            rows.append((event, transform(event)))
        except Exception as error:  # noqa: BLE001 -- any error of the transform is kept with its event
            failures.append(failure(event, "transform", error))
    return rows, failures


class Engine:
    """Processes claims on one connection. `transform` makes the rows. Not for use by several threads."""

    def __init__(
        self,
        settings: Settings,
        conn: psycopg.Connection[Any],
        lookups: Lookups,
        circuit: Circuit | None = None,
        transform: Transform = transform,
    ) -> None:
        self._settings = settings
        self._conn = conn
        self._lookups = lookups
        self._circuit = circuit
        self._row_of = transform

    def step(self, claim: Claim, noted: Callable[[Sequence[Work]], None] | None = None) -> Processed:
        """Process what `claim` locks; all zeros if that is nothing. `noted` gets what is held before the work starts.

        Raises psycopg errors that the data did not cause (see errors.is_transient). The claim is then rolled back.
        """
        try:
            # A pipeline: BEGIN is sent with the claim, and the load with everything after it up to COMMIT.
            with self._conn.pipeline(), self._conn.transaction():
                works = claim(self._conn)
                if not works:
                    return Processed()
                if noted:
                    noted(works)
                reach("worker.after_claim")
                loading = self._process(works)
                reach("worker.before_commit")
            reach("worker.after_commit")
            self._lookups.forget(loading.changed)
            self._note(loading.rows, loading.failures)
            return loading.processed()
        except Exception as error:
            if not self._conn.closed:
                # If the pipeline failed at COMMIT, the transaction block is still open.
                self._conn.rollback()
            if not _may_be_the_datas(error):
                raise
        with self._conn.transaction():
            works = claim(self._conn)
            if noted and works:
                noted(works)
            done, rows, failures = self._process_carefully(works)
        self._lookups.forget(subjects_of(rows))
        self._note(rows, failures)
        return done

    def _process(self, works: Sequence[Work]) -> "_Loading":
        """The fast path: all or nothing. No statement waits for a result before the commit."""
        transformed, failures = self._transform(works)
        rows = self._enrich(transformed)
        reach("worker.after_enrich")
        loading = self._load(rows)
        reach("worker.mid_load")
        changed = keep_traits(self._conn, rows)
        buried = bury(self._conn, self._settings, failures)
        complete(self._conn, works)
        return _Loading(works, rows, failures, buried, changed, loading)

    def _process_carefully(self, works: Sequence[Work]) -> tuple[Processed, list[Enriched], list[Failure]]:
        """The slow path after bad data: every part is enriched and loaded in a savepoint, down to single events."""
        transformed, unsound = self._transform(works)
        loaded, delivered, unloadable = self._load_splitting(transformed)
        failures = [*unsound, *unloadable]
        buried = bury(self._conn, self._settings, failures)
        complete(self._conn, works)
        return _processed(works, loaded, buried, delivered), loaded, failures

    def _transform(self, works: Sequence[Work]) -> tuple[list[tuple[QueuedEvent, Row]], list[Failure]]:
        return transform_all([event for work in works for event in read(work)], self._row_of)

    def _enrich(self, transformed: Sequence[tuple[QueuedEvent, Row]], *, cached: bool = True) -> list[Enriched]:
        return enrich(self._conn, self._lookups, transformed, cached=cached)

    def _load(self, rows: Sequence[Enriched]) -> list[psycopg.Cursor[Any]]:
        return load(self._conn, rows)

    def _note(self, rows: Sequence[Enriched], failures: Sequence[Failure]) -> None:
        """Count what was committed. A path that failed does not count."""
        row_numbers().made(sum(item.row.is_time_unusable for item in rows), self._lookups.left_out)
        self._lookups.left_out = 0
        if self._circuit:
            self._circuit.note([row.event.tenant_id for row in rows], [failed.event.tenant_id for failed in failures])

    def _load_splitting(
        self, transformed: Sequence[tuple[QueuedEvent, Row]]
    ) -> tuple[list[Enriched], int, list[Failure]]:
        """Load in order, so that a part sees the traits of the parts before it, and none of an event that failed."""
        loaded: list[Enriched] = []
        delivered = 0
        failures: list[Failure] = []
        parts = Halves(transformed)
        for part in parts:
            failed_in: FailedIn = "enrich"
            try:
                with self._conn.transaction():
                    rows = self._enrich(part, cached=False)
                    failed_in = "load"
                    new = new_rows(self._load(rows))
                    keep_traits(self._conn, rows)
            except Exception as error:
                if not _may_be_the_datas(error):
                    raise
                if not parts.split(part):
                    failures.append(failure(part[0][0], failed_in, error))
            else:
                loaded += rows
                delivered += new
        return loaded, delivered, failures


def _may_be_the_datas(error: Exception) -> bool:
    """False if PostgreSQL says that the data is not the cause. A Python error may come from one event."""
    return is_bad_data(error) if isinstance(error, psycopg.Error) else True


def _processed(works: Sequence[Work], rows: Sequence[Enriched], dead_lettered: int, delivered: int) -> Processed:
    return Processed(sum(work.events for work in works), delivered, len(rows) - delivered, dead_lettered)
