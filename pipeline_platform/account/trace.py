"""One event's way through the platform: every time it was accepted, and the outcome of each.

The delivered row is found by its identity key at once. Acceptances are looked for in all kept batches, which takes
about a second for ten million events. Acceptances in dropped hours cannot be shown.
"""

import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.telemetry.tracing import trace_id_of
from pipeline_platform.tenants.tenants import tenant_id_of

_SQL = queries("account")
_OUTCOMES = {"waiting": "dead_lettered", "exhausted": "dead_lettered"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known of one messageId. Rows are ready for JSON, apart from times and UUIDs.

    accepted: each acceptance with its outcome: in_flight, delivered, duplicate, dead_lettered or discarded. An
    acceptance with none of these is lost; the audit reports it as well.
    """

    message_id: str
    event_id: uuid.UUID
    accepted: list[Row]
    delivered: list[Row]
    dead_letters: list[Row]
    quarantined: list[Row]

    @property
    def found(self) -> bool:
        return bool(self.accepted or self.delivered or self.dead_letters or self.quarantined)

    @property
    def timeline(self) -> list[Row]:
        """What happened when, oldest first: at, stage, seconds since the first, and where it is written."""
        steps = [
            *(_step(row, "received", "received_at", "batch_id", "event_index", "lane") for row in self.accepted),
            *(_step(row, "rejected", "received_at", "quarantine_id", "code") for row in self.quarantined),
            *(
                _step(row, "dead letter", "created_at", "dead_letter_id", "batch_id", "error_class")
                for row in self.dead_letters
            ),
            *(
                _step(row, row["state"], "resolved_at", "dead_letter_id", "attempts", "reason")
                for row in self.dead_letters
                if row["resolved_at"] and row["state"] != "delivered"
            ),
            *(_step(row, "delivered", "delivered_at", "batch_id") for row in self.delivered),
        ]
        steps.sort(key=lambda step: step["at"])
        return [{**step, "seconds": (step["at"] - steps[0]["at"]).total_seconds()} for step in steps]

    def to_json(self) -> dict[str, Any]:
        return {"found": self.found, "timeline": self.timeline, **asdict(self)}


def _step(row: Row, stage: str, at: str, *details: str) -> Row:
    named = {name: row[name] for name in details if row[name] is not None}
    return {"at": row[at], "stage": stage, "tenant": row["tenant"], **named}


def trace(conn: psycopg.Connection[Any], message_id: str, event_id: uuid.UUID, tenant: str | None = None) -> Trace:
    """What happened to this event, of one tenant (by name) or of any, in one snapshot.

    event_id: see event.event_id_of. conn: in autocommit mode, outside a transaction. NoSuchThingError if there is no
    such tenant.
    """
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        wanted = {
            "event_id": event_id,
            "message_id": message_id,
            "tenant_id": tenant_id_of(conn, tenant) if tenant else None,
        }

        def rows(query: str) -> list[Row]:
            return cursor.execute(_SQL[query], wanted).fetchall()

        delivered = rows("trace_delivered") or rows("trace_delivered_before")
        letters = rows("trace_dead_letters")
        accepted = list(_judged(rows("trace_occurrences"), delivered, letters))
        for row in accepted:
            row["trace_id"] = f"{trace_id_of(row['batch_id'], row.pop('batch_received_at')):032x}"
        return Trace(message_id, event_id, accepted, delivered, letters, rows("trace_quarantined"))


def _judged(occurrences: list[Row], delivered: list[Row], letters: list[Row]) -> Iterator[Row]:
    """Each acceptance with its outcome. If one batch holds an identity twice, the first one counts as delivered."""
    fates = {(letter["batch_id"], letter["event_index"]): letter["state"] for letter in letters}
    redelivered = {(letter["tenant"], letter["batch_id"]) for letter in letters if letter["state"] == "delivered"}
    homes = {(row["tenant"], row["batch_id"]) for row in delivered} - redelivered
    tenants = {row["tenant"] for row in delivered}
    for row in occurrences:
        fate = fates.get((row["batch_id"], row["event_index"]))
        home = (row["tenant"], row["batch_id"])
        if row["work_id"] is not None:
            outcome = "in_flight"
        elif fate is not None:
            outcome = _OUTCOMES.get(fate, fate)
        elif home in homes:
            outcome = "delivered"
            homes.discard(home)
        else:
            outcome = "duplicate" if row["tenant"] in tenants else "lost"
        yield {**row, "outcome": outcome}
