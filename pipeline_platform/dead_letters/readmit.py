"""Readmits quarantined events that an operator's function has corrected. They are validated as in the gateway.

A readmitted event is received again, now. Its quarantined row stays and is marked, so that no event is readmitted
twice. Each event has the same identity each time. Readmission and erasure exclude each other. An event of a
person who was erased after it was received is refused, because it would become newer than the erasure.
"""

import json
import runpy
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import psycopg

from pipeline_platform.archive.hold import exclusively
from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError, InvalidEventError, is_bad_data
from pipeline_platform.event.json_limits import doubts_of
from pipeline_platform.event.reader import Limits, read_event
from pipeline_platform.event.types import MESSAGE_ID_NAMESPACE, AcceptedEvent, Lane, TenantId
from pipeline_platform.halving import Halves
from pipeline_platform.queue.batches import accept
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tombstones import erased_places

_SQL = queries("quarantine")
_AT_ONCE = 500

Conn = psycopg.Connection[Any]
Correct = Callable[[bytes], bytes | dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A selection of quarantined events. None: no limit. `since`: received at or after."""

    tenant: str | None = None
    code: str | None = None
    since: datetime | None = None
    ids: Sequence[int] | None = None


@dataclass(slots=True)
class Readmitted:
    """accepted: readmitted, or would be. left: the function returned None. refused: still invalid, by code. samples: a
    few of their messages."""

    accepted: int = 0
    left: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    samples: list[str] = field(default_factory=list[str])

    def refuse(self, quarantine_id: int, code: str, message: str) -> None:
        self.refused[code] += 1
        if len(self.samples) < 5:
            self.samples.append(f"{quarantine_id}: {message}")


def read_correction(path: Path) -> Correct:
    """The function `correct` of a Python file. It turns bytes into bytes, a dict or None. Raises ConfigError."""
    try:
        found = runpy.run_path(str(path)).get("correct")
    except Exception as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{path} has no function correct(payload: bytes) -> bytes | dict | None")
    return cast("Correct", found)


def readmit(
    conn: Conn, settings: Settings, chosen: Quarantined, correct: Correct, reason: str, *, dry_run: bool
) -> Readmitted:
    """Correct and accept the chosen events, some hundred in a transaction with its line in the audit log.

    conn: in autocommit mode.
    """
    with exclusively(conn):
        return _readmit(conn, settings, chosen, correct, reason, dry_run=dry_run)


def _readmit(
    conn: Conn, settings: Settings, chosen: Quarantined, correct: Correct, reason: str, *, dry_run: bool
) -> Readmitted:
    done, after = Readmitted(), 0
    params = asdict(chosen) | {"ids": list(chosen.ids) if chosen.ids else None, "limit": _AT_ONCE}
    while True:
        with conn.transaction():
            rows = conn.execute(_SQL["next"], params | {"after": after}).fetchall()
            if not rows:
                break
            after = rows[-1][0]
            events = _corrected(rows, correct, Limits.of(settings), done)
            _refuse_erased(conn, events, {row[0]: row[-1] for row in rows}, done)
            if events and not dry_run:
                _recall_keys(conn, settings, events)
            taken = list(events) if dry_run else _accept(conn, list(events.items()), done)
            done.accepted += len(taken)
            if taken and not dry_run:
                conn.execute(_SQL["readmitted"], (taken,))
                note(conn, "quarantine readmit", reason, {"quarantine_ids": taken})
    return done


def _corrected(
    rows: Sequence[tuple[int, TenantId, bytes, datetime]], correct: Correct, limits: Limits, done: Readmitted
) -> dict[int, AcceptedEvent]:
    events: dict[int, AcceptedEvent] = {}
    for quarantine_id, tenant_id, payload, _ in rows:
        try:
            answer = correct(payload)
            if answer is None:
                done.left += 1
                continue
            body = answer if isinstance(answer, bytes) else json.dumps(answer, ensure_ascii=False).encode()
            own_id = uuid.uuid5(MESSAGE_ID_NAMESPACE, f"quarantine:{tenant_id}:{quarantine_id}")
            events[quarantine_id] = read_event(body, tenant_id, limits, doubts_of(body), lambda made=own_id: made)
        except InvalidEventError as error:
            done.refuse(quarantine_id, error.code, str(error))
        except Exception as error:  # noqa: BLE001 -- any error of the operator's function counts for this event
            done.refuse(quarantine_id, "correction_failed", f"{type(error).__name__}: {error}")
    return events


def _refuse_erased(
    conn: Conn, events: dict[int, AcceptedEvent], received_at: dict[int, datetime], done: Readmitted
) -> None:
    """Remove the corrected events of people who were erased after the events were received."""
    ids = list(events)
    payloads = [events[one].payload for one in ids]
    erased = erased_places(conn, [events[one].tenant_id for one in ids], payloads, [received_at[one] for one in ids])
    for place in sorted(erased):
        del events[ids[place]]
        done.refuse(ids[place], "erased", "the person was erased after the event was received")


def _recall_keys(conn: Conn, settings: Settings, events: Mapping[int, AcceptedEvent]) -> None:
    """Make sure that events that production has are recognised, however long ago they were delivered."""
    params = {
        "tenant_ids": [event.tenant_id for event in events.values()],
        "event_ids": [event.event_id for event in events.values()],
        "ids": list(events),
        "retention": settings.retention,
    }
    conn.execute(_SQL["recall_keys"], params)


def _accept(conn: Conn, events: Sequence[tuple[int, AcceptedEvent]], done: Readmitted) -> list[int]:
    """Returns the ids of the accepted events. Halving finds events that PostgreSQL cannot hold."""
    taken: list[int] = []
    parts = Halves(events)
    for part in parts:
        try:
            with conn.transaction():
                accept(conn.execute, Lane.OVERFLOW, [event for _, event in part], [])
        except psycopg.Error as error:
            if not is_bad_data(error):
                raise
            if not parts.split(part):
                done.refuse(part[0][0], "unstorable", str(error).strip())
        else:
            taken += [quarantine_id for quarantine_id, _ in part]
    return taken
