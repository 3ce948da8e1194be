"""Stores events that cannot be written, with payload and cause. They are tried again with backoff, then exhausted.

The backoff is exponential, with full jitter between half and all of the step. After `attempts_max` attempts there is
one alert per fingerprint. A dead letter holds its own copy of the event, which retention never deletes.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import psycopg

from pipeline_platform import arrays
from pipeline_platform.backoff import jittered_s
from pipeline_platform.db import queries
from pipeline_platform.event.person_ids import message_id_of
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.settings import Settings

_SQL = queries("worker")
_ERROR_CHARS_MAX = 2_000

FailedIn = Literal["claim", "enrich", "transform", "load"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one event could not be written."""

    event: QueuedEvent
    failed_in: FailedIn
    error_class: str
    error: str

    @property
    def fingerprint(self) -> str:
        """Equal for the same cause. Values, numbers and quoted parts of the message are ignored."""
        shape = re.sub(r"\"[^\"]*\"|'[^']*'|\d+", "?", self.error.splitlines()[0] if self.error else "")
        return hashlib.sha256(f"{self.failed_in}|{self.error_class}|{shape}".encode()).hexdigest()[:16]


def failure(event: QueuedEvent, failed_in: FailedIn, error: BaseException) -> Failure:
    """The stored form of an error. NUL is escaped, because a text cannot hold it."""
    text = str(error).replace("\0", "\\0")[:_ERROR_CHARS_MAX]
    return Failure(event, failed_in, type(error).__name__, text.encode(errors="backslashreplace").decode())


def next_attempt_at(settings: Settings, attempts: int) -> datetime | None:
    """When to try again after `attempts` attempts. None: never."""
    if attempts >= settings.attempts_max:
        return None
    wait_s = jittered_s(attempts, settings.retry_base_s, settings.retry_max_s)
    return datetime.now(UTC) + timedelta(seconds=wait_s)


def bury(
    conn: psycopg.Connection[Any], settings: Settings, failures: Sequence[Failure], *, exhausted: bool = False
) -> int:
    """Move events from the queue to the dead letters and count them, in the caller's transaction. Returns how many.

    Events that failed because they were erased meanwhile are no dead letters. They are counted as discarded.
    """
    failures = _not_erased(conn, failures)
    if not failures:
        return 0
    events = [item.event for item in failures]
    attempts = settings.attempts_max if exhausted else 1
    conn.execute(
        _SQL["bury"],
        {
            "tenant_id": arrays.int4s([event.tenant_id for event in events]),
            "event_id": arrays.uuids([event.event_id for event in events]),
            "message_id": [message_id_of(event.payload) for event in events],
            "type": [event.type.code for event in events],
            "lane": [event.lane.value for event in events],
            "batch_id": arrays.int8s([event.batch_id for event in events]),
            "event_index": arrays.int4s([event.event_index for event in events]),
            "batch_received_at": arrays.timestamps([event.batch_received_at for event in events]),
            "received_at": arrays.timestamps([event.received_at for event in events]),
            "client_at": arrays.timestamps([event.client_at for event in events]),
            "envelope": arrays.byteas([event.envelope or None for event in events]),
            "payload": arrays.byteas([event.payload for event in events]),
            "failed_in": [item.failed_in for item in failures],
            "error_class": [item.error_class for item in failures],
            "error": [item.error for item in failures],
            "fingerprint": [item.fingerprint for item in failures],
            "attempts": arrays.int4s([attempts for _ in failures]),
            "next_attempt_at": arrays.timestamps([next_attempt_at(settings, attempts) for _ in failures]),
            "epoch": arrays.int4s([event.epoch for event in events]),
        },
    )
    if attempts >= settings.attempts_max:
        for item in failures:
            alert_exhausted(conn, item)
    return len(failures)


def _not_erased(conn: psycopg.Connection[Any], failures: Sequence[Failure]) -> Sequence[Failure]:
    """All but the events that an erasure emptied. Those are counted here. Others without bytes are damaged."""
    empty = [item.event for item in failures if not item.event.payload]
    if not empty:
        return failures
    params = {
        "tenant_id": arrays.int4s([event.tenant_id for event in empty]),
        "lane": [event.lane.value for event in empty],
        "batch_id": arrays.int8s([event.batch_id for event in empty]),
        "event_index": arrays.int4s([event.event_index for event in empty]),
    }
    erased = set(conn.execute(_SQL["discard_erased"], params).fetchall())
    return [item for item in failures if (item.event.batch_id, item.event.event_index) not in erased]


def postpone(
    conn: psycopg.Connection[Any], settings: Settings, dead_letter_id: int, attempts: int, again: Failure
) -> None:
    """Note one more failed attempt of a dead letter. The last attempt exhausts it and alerts."""
    at = next_attempt_at(settings, attempts + 1)
    conn.execute(
        _SQL["postpone_dead_letter"],
        {
            "tenant_id": again.event.tenant_id,
            "dead_letter_id": dead_letter_id,
            "failed_in": again.failed_in,
            "error_class": again.error_class,
            "error": again.error,
            "fingerprint": again.fingerprint,
            "next_attempt_at": at,
        },
    )
    if at is None:
        alert_exhausted(conn, again)


def exhaust(conn: psycopg.Connection[Any], dead_letter_id: int, last: Failure) -> None:
    """Exhaust a dead letter whose attempts are used up, without another attempt, and alert."""
    conn.execute(
        _SQL["exhaust_dead_letter"],
        {
            "tenant_id": last.event.tenant_id,
            "dead_letter_id": dead_letter_id,
            "error_class": last.error_class,
            "error": last.error,
            "fingerprint": last.fingerprint,
        },
    )
    alert_exhausted(conn, last)


def alert_exhausted(conn: psycopg.Connection[Any], last: Failure) -> None:
    """Open one alert per tenant and fingerprint, or count one more on the open one.

    It leaves out the error's message, which may quote the event, because an alert leaves the database.
    """
    conn.execute(
        _SQL["alert_exhausted"],
        {
            "fingerprint": last.fingerprint,
            "tenant_id": last.event.tenant_id,
            "message": f"dead letters were tried for the last time, at {last.failed_in}: {last.error_class}; see: "
            f"pipeline-platform dead-letters list --fingerprint {last.fingerprint}",
            "event_id": str(last.event.event_id),
        },
    )
