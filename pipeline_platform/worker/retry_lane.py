"""The retry lane: dead letters that are due go through the same engine again, together if that works.

What a worker holds is noted before it is tried. A death with several letters shows only that one of them may kill its
worker, so each of them is tried alone next. A death with one letter is an attempt. The last one exhausts the letter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.dead_letters.store import FailedIn, Failure, exhaust, failure, next_attempt_at, postpone
from pipeline_platform.errors import is_bad_data
from pipeline_platform.event.types import EventType, Lane, QueuedEvent
from pipeline_platform.halving import Halves
from pipeline_platform.lookups import LookupKey, Lookups
from pipeline_platform.queue.batches import CLAIM_BYTES_MAX
from pipeline_platform.queue.claim_notes import HeldLetter
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Processed, transform_all
from pipeline_platform.worker.enrich import Enriched, enrich_each
from pipeline_platform.worker.load import keep_traits, load, new_rows
from pipeline_platform.worker.transform import Transform, transform

_SQL = queries("worker")
_AT_ONCE = 500
# The first attempt buried the letter. At this attempt it was tried alone.
_ATTEMPTS_ALONE_MIN = 2


Noted = Callable[[Sequence[HeldLetter]], None]


@dataclass(frozen=True, slots=True)
class _Letter:
    dead_letter_id: int
    attempts: int
    failed_in: FailedIn
    deaths: int
    event: QueuedEvent

    @property
    def held(self) -> HeldLetter:
        return HeldLetter(self.event.tenant_id, self.dead_letter_id, self.attempts)


class _MixedError(Exception):
    """Some rows of a load were new and some were duplicates. Halving finds out which."""


def redeliver(
    settings: Settings,
    conn: psycopg.Connection[Any],
    lookups: Lookups,
    noted: Noted | None = None,
    transform: Transform = transform,
) -> Processed:
    """Try the dead letters that are due, in one transaction. Transient errors roll it back and use up no attempt.

    Letters that a dead worker held are tried one by one, after all others. `noted` gets what is held before the work
    starts.
    """
    done = Processed()
    changed: list[LookupKey] = []
    if conn.execute(_SQL["any_due_dead_letter"], prepare=True).fetchone() == (False,):
        return done
    with conn.transaction():
        # Before the letters, in the order of an erasure and of a replay's undo.
        conn.execute(_SQL["enter_keys"])
        letters = _due(conn, "due_dead_letters", _AT_ONCE, CLAIM_BYTES_MAX) or _due(conn, "due_suspect_letters")
        if not letters:
            return done
        if letters[0].deaths and letters[0].attempts >= max(settings.attempts_max, _ATTEMPTS_ALONE_MIN):
            _give_up(conn, letters[0])
            return Processed(claimed=1)
        if noted:
            noted([letter.held for letter in letters])
        for was_loaded in (False, True):
            part = [letter for letter in letters if (letter.failed_in == "load") is was_loaded]
            done += _try_again(settings, conn, lookups, transform, part, changed)
    # After the commit: another worker would read and cache the earlier traits again.
    lookups.forget(changed)
    return done


def count_death(conn: psycopg.Connection[Any], settings: Settings, letters: Sequence[HeldLetter]) -> None:
    """Count a worker's death against the letters of its note, except those that it had finished."""
    again_at = None
    if len(letters) == 1:
        again_at = next_attempt_at(settings, letters[0].attempts + 1) or datetime.now(UTC)
    conn.execute(
        _SQL["count_death_of_letters"],
        {
            "tenant_id": [letter.tenant_id for letter in letters],
            "dead_letter_id": [letter.dead_letter_id for letter in letters],
            "attempts": [letter.attempts for letter in letters],
            "again_at": again_at,
        },
    )


def _due(conn: psycopg.Connection[Any], query: str, *limits: int) -> list[_Letter]:
    rows = conn.execute(_SQL[query], limits).fetchall()
    return [_Letter(row[0], row[1], row[2], row[3], _event(row[4:])) for row in rows]


def _give_up(conn: psycopg.Connection[Any], letter: _Letter) -> None:
    text = f"{letter.deaths} workers died processing this event"
    exhaust(conn, letter.dead_letter_id, Failure(letter.event, letter.failed_in, "WorkerCrashedError", text))


def _event(row: tuple[Any, ...]) -> QueuedEvent:
    (
        tenant_id,
        event_id,
        code,
        client_at,
        received_at,
        payload,
        envelope,
        lane,
        batch_id,
        index,
        batch_received_at,
        epoch,
        is_shadow,
    ) = row
    return QueuedEvent(
        tenant_id=tenant_id,
        event_id=event_id,
        type=EventType.of_code(code),
        client_at=client_at,
        received_at=received_at,
        payload=payload,
        envelope=envelope,
        lane=Lane(lane),
        batch_id=batch_id,
        event_index=index,
        batch_received_at=batch_received_at,
        epoch=epoch,
        is_shadow=is_shadow,
    )


def _try_again(
    settings: Settings,
    conn: psycopg.Connection[Any],
    lookups: Lookups,
    transform: Transform,
    letters: Sequence[_Letter],
    changed: list[LookupKey],
) -> Processed:
    """Transform, enrich and deliver. Adds to `changed` whose traits were written."""
    by_place = {(letter.event.batch_id, letter.event.event_index): letter for letter in letters}
    rows, failures = transform_all([letter.event for letter in letters], transform)
    enriched, unenriched = enrich_each(conn, lookups, rows)
    failures += unenriched
    for failed in failures:
        letter = by_place[failed.event.batch_id, failed.event.event_index]
        postpone(conn, settings, letter.dead_letter_id, letter.attempts, failed)
    items = [(by_place[row.event.batch_id, row.event.event_index], row) for row in enriched]
    return Processed(claimed=len(failures)) + _deliver(settings, conn, items, changed)


def _deliver(
    settings: Settings,
    conn: psycopg.Connection[Any],
    items: Sequence[tuple[_Letter, Enriched]],
    changed: list[LookupKey],
) -> Processed:
    """Deliver all at once if that works, else by halves, down to the one that is bad."""
    done = Processed()
    parts = Halves(items)
    for part in parts:
        rows = [row for _, row in part]
        try:
            with conn.transaction():
                new = new_rows(load(conn, rows, redelivery=True, adds_enriched=part[0][0].failed_in != "load"))
                if 0 < new < len(rows):
                    raise _MixedError
                written = keep_traits(conn, rows)
        except _MixedError:
            parts.split(part)
        except psycopg.Error as error:
            if not is_bad_data(error):
                raise
            if not parts.split(part):
                letter, row = part[0]
                postpone(conn, settings, letter.dead_letter_id, letter.attempts, failure(row.event, "load", error))
                done += Processed(claimed=1)
        else:
            _resolve(conn, [letter for letter, _ in part], delivered=new > 0)
            changed += written
            done += Processed(claimed=len(part), delivered=new, duplicate=len(part) - new)
    return done


def _resolve(conn: psycopg.Connection[Any], letters: Sequence[_Letter], *, delivered: bool) -> None:
    params = {
        "delivered": delivered,
        "tenant_id": [letter.event.tenant_id for letter in letters],
        "dead_letter_id": [letter.dead_letter_id for letter in letters],
    }
    conn.execute(_SQL["resolve_dead_letters"], params)
