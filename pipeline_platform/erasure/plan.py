"""What an erasure finds, and its result. Changes nothing."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.erasure.person import Person
from pipeline_platform.erasure.scan import look_for
from pipeline_platform.errors import PipelineError
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import tenant_id_of

_SQL = queries("erasure")

Conn = psycopg.Connection[Any]


@dataclass(slots=True)
class Erasure:
    """What was found and what was done.

    found: number of events by place and by the id that matched ("queue": {"by_user_id": 3, "by_other_ids": 1}). by_id:
    the same by id and place, with linked users. changed: rows by table. outcomes: the previous outcomes of the accepted
    events. not_ours: what this command cannot reach.
    """

    tenant: str
    subject_hash: str
    person: Person
    found: dict[str, dict[str, int]]
    by_id: dict[str, Counter[str]]
    erasure_id: int | None = None
    erased_at: datetime | None = None
    changed: Counter[str] = field(default_factory=Counter[str])
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    not_ours: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        return {
            "erasure_id": self.erasure_id,
            "tenant": self.tenant,
            "subject_hash": self.subject_hash,
            "erased_at": self.erased_at,
            "ids": {
                "users": len(self.person.users),
                "anonymous": len(self.person.anonymous - self.person.users),
                "shared": len(self.person.shared),
            },
            "by_id": self.every_id(),
            "found": self.found,
            "changed": dict(self.changed),
            "outcomes": self.outcomes,
            "not_ours": self.not_ours,
        }

    def every_id(self) -> list[dict[str, Any]]:
        """Each id with the link that leads to it, whether it is erased, and its events by place; erased ones first."""
        person = self.person
        named = {person.user_id: "named by you"} | dict.fromkeys(person.users - {person.user_id}, "named with --also")
        erased = named | {name: link for name, link in person.links.items() if name not in named}
        rows = [(name, link, True) for name, link in erased.items()]
        rows += [(name, link, False) for name, link in person.linked.items()]
        return [
            {"id": name, "link": link, "is_erased": is_erased, "events": dict(self.by_id.get(name, {}))}
            for name, link, is_erased in rows
        ]

    def counts(self) -> dict[str, Any]:
        """The part of the result that is stored: numbers, no names."""
        kept = ("ids", "found", "changed", "outcomes")
        return {name: value for name, value in self.to_json().items() if name in kept}


def plan(settings: Settings, tenant: str, user_id: str, also: Collection[str] = ()) -> Erasure:
    """What an erasure would find now; changes nothing. NoSuchThingError if there is no such tenant."""
    with connect(settings.database_url, "erase plan", statement_timeout_s=0) as conn:
        return make_plan(conn, tenant, tenant_id_of(conn, tenant), user_id, also)


def make_plan(
    conn: Conn, tenant: str, tenant_id: int, user_id: str, also: Collection[str], before: datetime | None = None
) -> Erasure:
    """Look for a person's events that were received before that time (None: all). Fills the table of the scan."""
    person = look_for(conn, tenant_id, user_id, before, also)
    params = person.params() | {"user_id": user_id, "before": before, "linked": sorted(person.linked)}
    found: dict[str, dict[str, int]] = {}
    by_id: dict[str, Counter[str]] = {}
    for source, is_theirs, name, is_named, events in conn.execute(_SQL["planned"], params):
        by_id.setdefault(name, Counter())[source] += events
        if is_theirs:
            by = found.setdefault(source, {"by_user_id": 0, "by_other_ids": 0})
            by["by_user_id" if is_named else "by_other_ids"] += events
    (subject,) = one_row(conn, "subject_hash", params)
    return Erasure(tenant, subject, person, found, by_id)


def one_row(conn: Conn, query: str, params: dict[str, Any]) -> tuple[Any, ...]:
    """The only row of a query of erasure.sql. PipelineError if there is none."""
    row = conn.execute(_SQL[query], params).fetchone()
    if row is None:
        raise PipelineError(f"the database gave no answer to {query}")
    return row
