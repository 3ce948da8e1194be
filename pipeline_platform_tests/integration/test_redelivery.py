"""Dead letters whose worker dies of them: who is tried with whom, and what counts as an attempt."""

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect, queries
from pipeline_platform.dead_letters.store import Failure, bury
from pipeline_platform.event.types import Lane, QueuedEvent
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import claim, complete, read
from pipeline_platform.queue.claim_notes import ClaimNote, Held, HeldLetter, read_claim_note
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.settings import Settings
from pipeline_platform.worker.retry_lane import count_death, redeliver
from pipeline_platform.worker.transform import Row, transform
from pipeline_platform_tests.support.ledger import account_faults
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.workers import Died

Conn = psycopg.Connection[Any]


@pytest.fixture
def letters(conn: Conn, settings: Settings) -> int:
    """40 dead letters that are due, the 18th of which is deadly."""
    open_partitions(conn)
    (tenant,) = add_tenants(conn, "acme")
    accept_ids(conn, tenant.tenant_id, sorted(uuid.uuid4() for _ in range(40)))
    with connect(settings.database_url, "test") as own, own.transaction():
        works = claim(own, Lane.LIVE, 10, 0)
        failures = [Failure(event, "load", "TestError", "a test") for work in works for event in read(work)]
        bury(own, settings, failures)
        complete(own, works)
    conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now()")
    return 18


def test_a_letter_that_kills_is_exhausted_and_its_neighbours_lose_no_attempt(
    conn: Conn, settings: Settings, lookups: Lookups, letters: int
) -> None:
    def dying(event: QueuedEvent) -> Row:
        if event.event_index == letters:
            raise Died
        return transform(event)

    held: Sequence[HeldLetter] = ()
    sizes: list[int] = []

    def noted(now: Sequence[HeldLetter]) -> None:
        nonlocal held
        held = now

    with connect(settings.database_url, "test worker") as own:
        while conn.execute("SELECT count(*) FROM queue.dead_letters WHERE state = 'waiting'").fetchone() != (0,):
            try:
                redeliver(settings, own, lookups, noted, dying)
            except Died:
                sizes.append(len(held))
                count_death(conn, settings, held)
                later = "SELECT count(*) FROM queue.dead_letters WHERE next_attempt_at > clock_timestamp()"
                assert conn.execute(later).fetchone() == (len(held) == 1 and len(sizes) < 5,)
                conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now() WHERE state = 'waiting'")
    assert sizes == [40, 1, 1, 1, 1]
    found = conn.execute("SELECT state, attempts, error_class, count(*) FROM queue.dead_letters GROUP BY 1, 2, 3")
    assert set(found) == {("delivered", 2, "TestError", 39), ("exhausted", 5, "WorkerCrashedError", 1)}
    assert conn.execute("SELECT occurrences FROM control.alerts").fetchall() == [(1,)]
    assert account_faults(conn) == []


@pytest.mark.usefixtures("letters")
def test_what_was_settled_before_the_death_is_not_counted(conn: Conn, settings: Settings, lookups: Lookups) -> None:
    """A worker that dies after its commit, before its next note."""
    held: list[HeldLetter] = []
    conn.execute("UPDATE queue.dead_letters SET payload = '{' WHERE event_index < 10")
    with connect(settings.database_url, "test worker") as own:
        redeliver(settings, own, lookups, held.extend)
    assert len(held) == 40
    before = conn.execute("SELECT * FROM queue.dead_letters ORDER BY dead_letter_id").fetchall()
    assert [row for row in before if "waiting" in row]
    count_death(conn, settings, held)
    assert conn.execute("SELECT * FROM queue.dead_letters ORDER BY dead_letter_id").fetchall() == before


def test_a_note_names_work_and_letters(settings: Settings) -> None:
    path = settings.home / "claims" / "worker-1"
    assert read_claim_note(path) == Held()
    note = ClaimNote(path)
    note.write([1, 22, 333])
    assert read_claim_note(path) == Held([1, 22, 333], [])
    note.write([], [HeldLetter(1, 2, 3)])
    assert read_claim_note(path) == Held([], [HeldLetter(1, 2, 3)])
    note.write([])
    assert read_claim_note(path) == Held([], [])


@pytest.mark.usefixtures("letters")
def test_letters_that_are_tried_together_are_bounded_by_bytes(conn: Conn) -> None:
    size = conn.execute("SELECT min(octet_length(payload)) FROM queue.dead_letters").fetchone()
    assert size
    due = queries("worker")["due_dead_letters"]
    assert [len(conn.execute(due, (most, size[0] * 3)).fetchall()) for most in (2, 500)] == [2, 3]
    assert len(conn.execute(due, (500, 1)).fetchall()) == 1
