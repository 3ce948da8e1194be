"""Operations on dead letters and quarantined events: list, show, redrive, discard with a reason.

Nothing here delivers an event. A redriven dead letter is due at once and goes through the workers' retry lane. Every
change is one transaction with its line in control.audit_log.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.dead_letters.masking import mask
from pipeline_platform.errors import NoSuchThingError

_SQL = queries("dead_letters")
_QUARANTINE = queries("quarantine")
OPEN_STATES = ("waiting", "exhausted")

Conn = psycopg.Connection[Any]
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """A selection of dead letters. None: no limit. tenants: by name. `since` and `until`: when they were buried."""

    tenants: Sequence[str] | None = None
    fingerprint: str | None = None
    since: datetime | None = None
    ids: Sequence[int] | None = None
    until: datetime | None = None
    failed_in: str | None = None
    error_class: str | None = None

    def params(self) -> dict[str, Any]:
        lists = {"tenants": self.tenants, "ids": self.ids}
        return asdict(self) | {name: list(chosen) if chosen else None for name, chosen in lists.items()}


def list_dead_letters(conn: Conn, chosen: Filter, states: Sequence[str] = OPEN_STATES, limit: int = 100) -> list[Found]:
    """Dead letters without their payloads, oldest first."""
    return _rows(conn, _SQL["list"], chosen.params() | {"states": list(states), "limit": limit})


def show_dead_letter(conn: Conn, dead_letter_id: int, *, masked: bool = False) -> Found:
    """One dead letter, its payload as text. masked: without the values of secret keys. Raises NoSuchThingError."""
    found = _rows(conn, _SQL["show"], {"dead_letter_id": dead_letter_id})
    if not found:
        raise NoSuchThingError(f"no dead letter {dead_letter_id}; see: pipeline-platform dead-letters list")
    return _readable(found[0], masked=masked)


def count_open(conn: Conn, chosen: Filter) -> list[Found]:
    """How many open dead letters a filter selects, by tenant and fingerprint, for a dry run."""
    return _rows(conn, _SQL["count"], chosen.params())


def redrive(conn: Conn, chosen: Filter, reason: str) -> int:
    """Make open dead letters due at once and give them all attempts again. Returns how many."""
    with conn.transaction():
        redriven = conn.execute(_SQL["redrive"], chosen.params() | {"reason": reason}).rowcount
        conn.execute(_SQL["resolve_alerts"])
        _note(conn, "dead-letters redrive", reason, chosen, redriven)
    return redriven


def discard(conn: Conn, chosen: Filter, reason: str) -> int:
    """Give up the chosen open dead letters with a reason. They then count as discarded. Returns how many."""
    with conn.transaction():
        discarded = conn.execute(_SQL["discard"], chosen.params() | {"reason": reason}).rowcount
        conn.execute(_SQL["resolve_alerts"])
        _note(conn, "dead-letters discard", reason, chosen, discarded)
    return discarded


def list_quarantine(
    conn: Conn, tenant: str | None = None, code: str | None = None, since: datetime | None = None, limit: int = 100
) -> list[Found]:
    """Quarantined events without their payloads, oldest first."""
    return _rows(conn, _QUARANTINE["list"], {"tenant": tenant, "code": code, "since": since, "limit": limit})


def show_quarantined(conn: Conn, quarantine_id: int, *, masked: bool = False) -> Found:
    """One quarantined event, its payload as text, masked like a dead letter's. Raises NoSuchThingError."""
    found = _rows(conn, _QUARANTINE["show"], {"quarantine_id": quarantine_id})
    if not found:
        raise NoSuchThingError(f"no quarantined event {quarantine_id}; see: pipeline-platform quarantine list")
    return _readable(found[0], masked=masked)


def _rows(conn: Conn, query: LiteralString, params: dict[str, Any]) -> list[Found]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, params).fetchall()


def _readable(found: Found, *, masked: bool) -> Found:
    """Escape bytes that are no text, because an operator must see them, too."""
    texts = {name: value.decode(errors="backslashreplace") for name, value in found.items() if isinstance(value, bytes)}
    shown = found | texts
    # Errors quote the data that caused them.
    quoting = [name for name in (*texts, "error", "message") if shown.get(name)]
    return shown | {name: mask(shown[name]) for name in quoting} if masked else shown


def _note(conn: Conn, action: str, reason: str, chosen: Filter, events: int) -> None:
    detail: dict[str, Any] = json.loads(json.dumps(chosen.params() | {"events": events}, default=str))
    note(conn, action, reason, detail)
