"""The circuit for operators: whether it is open, why, and how to close it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import NoSuchThingError

_SQL = queries("circuit")


@dataclass(frozen=True, slots=True)
class CircuitState:
    """The newest opening of the circuit. waiting: events that no worker has processed yet."""

    is_open: bool
    opened_at: datetime | None
    message: str | None
    closed_at: datetime | None
    reason: str | None
    waiting: int


def circuit_state(conn: psycopg.Connection[Any]) -> CircuitState:
    """The current state."""
    row = conn.execute(_SQL["newest"]).fetchone()
    (waiting,) = conn.execute(_SQL["waiting"]).fetchone() or (0,)
    if row is None:
        return CircuitState(is_open=False, opened_at=None, message=None, closed_at=None, reason=None, waiting=waiting)
    _, opened_at, message, closed_at, reason = row
    return CircuitState(closed_at is None, opened_at, message, closed_at, reason, waiting)


def close_circuit(conn: psycopg.Connection[Any], reason: str) -> None:
    """Let the workers go on. Raises NoSuchThingError if the circuit is not open."""
    with conn.transaction():
        closed = conn.execute(_SQL["close"], {"reason": reason}).fetchone()
        if closed is None:
            raise NoSuchThingError("the circuit is not open")
        note(conn, "circuit close", reason, {"circuit_id": closed[0]})
