"""The recount: every event of the kept hours by its key, compared with what the counters say.

Sees what counters cannot: an event that was counted as delivered and is in no table, a row that no accepted event
explains, one identity in two rows. An hour is the unit: it is recounted in a snapshot of its own and compared with the
counters of that same snapshot, so it is exact under load and holds no long transaction open. Hours whose batches were
dropped cannot be recounted and are left out; the result says how many.

A difference is a bug or a change by hand: keep the output, and do not repair the counters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.account.numbers import Numbers, total
from pipeline_platform.db import queries

_SQL = queries("account")
_SAMPLES = 5
# An hour of a million events is sorted and hashed in memory; measured: 3 times as fast as with the default of 4 MB.
_WORK_MEM = "256MB"

Group = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that does not add up in one hour.

    kind: counter (the account says `counted`, the rows say `recounted`), lost, doubled, extra, row_without_key,
    key_without_row: `events` of them, a few named in samples (event_id, batch_id, event_index).
    """

    kind: str
    hour: datetime
    tenant: str | None
    lane: str | None = None
    number: str | None = None
    counted: int | None = None
    recounted: int | None = None
    events: int | None = None
    samples: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class HourAudit:
    """One hour recounted; groups: by (tenant_id, lane)."""

    hour: datetime
    groups: dict[Group, Numbers]
    counted: dict[Group, Numbers]
    differences: list[Difference]

    @property
    def agrees(self) -> bool:
        return not self.differences

    @property
    def numbers(self) -> Numbers:
        return total(self.groups.values())

    @property
    def balanced(self) -> bool:
        return all(numbers.balanced for numbers in self.groups.values())


@dataclass(frozen=True, slots=True)
class Audit:
    """All kept hours recounted, and what could not be: hours and events of batches that were dropped."""

    hours: list[HourAudit]
    strays: list[Difference]
    names: dict[int, str] = field(repr=False)
    excluded_hours: int = 0
    excluded_events: int = 0

    @property
    def numbers(self) -> Numbers:
        return total(hour.numbers for hour in self.hours)

    @property
    def differences(self) -> list[Difference]:
        return [difference for hour in self.hours for difference in hour.differences] + self.strays

    @property
    def balanced(self) -> bool:
        return all(hour.balanced for hour in self.hours)

    def to_json(self) -> dict[str, Any]:
        tenants: dict[str, Numbers] = {}
        for hour in self.hours:
            for (tenant_id, _), numbers in hour.groups.items():
                name = self.names.get(tenant_id, str(tenant_id))
                tenants[name] = tenants.get(name, Numbers()) + numbers
        return {
            **self.numbers.totals(),
            "balanced": self.balanced,
            "agrees_with_funnel": not self.differences,
            "stages": self.numbers.stages(),
            "tenants": [
                {"tenant": name, **numbers.totals(), "balanced": numbers.balanced}
                for name, numbers in sorted(tenants.items(), key=lambda item: (-item[1].received, item[0]))
            ],
            "hours": [
                {"hour": hour.hour, **hour.numbers.totals(), "agrees_with_funnel": hour.agrees}
                for hour in self.hours
                if hour.groups or hour.differences
            ],
            "excluded": {"hours": self.excluded_hours, "received": self.excluded_events},
            "differences": self.differences,
        }


def audit_hour(conn: psycopg.Connection[Any], hour: datetime, names: dict[int, str] | None = None) -> HourAudit:
    """Recount one UTC hour of received_at and compare it with the account, in one snapshot.

    conn: in autocommit mode, outside a transaction, without a statement time-out below some minutes. names: of
    tenants by id, read where not given.
    """
    names = names if names is not None else _tenant_names(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute(_SQL["hold_hour"], {"hour": hour})
        conn.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
        found = conn.execute(_SQL["recount"], {"hour": hour, "samples": _SAMPLES}).fetchall()
        replayed = dict(conn.execute(_SQL["replayed"], {"hour": hour}).fetchall())
        counted = {(row[0], row[1]): Numbers(*row[2:]) for row in conn.execute(_SQL["counted"], {"hour": hour})}
    lost = {(row[1], row[2]): row[3] for row in found if row[0] == "lost"}
    groups = {
        (row[1], row[2]): Numbers(*row[5:]) + _not_duplicate(lost.get((row[1], row[2]), 0))
        for row in found
        if row[0] == "count"
    }
    for tenant_id, events in replayed.items():
        group = (tenant_id, "replay")
        groups[group] = groups.get(group, Numbers()) + _once_more(events)
    differences = [
        *_differing_counters(hour, names, counted, groups),
        *(
            Difference(kind, hour, _name(names, tenant_id), lane, events=events, samples=samples)
            for kind, tenant_id, lane, events, samples, *_ in found
            if kind != "count"
        ),
    ]
    return HourAudit(hour, groups, counted, differences)


def audit(conn: psycopg.Connection[Any], on_hour: Callable[[int, int], None] | None = None) -> Audit:
    """Recount every hour that is still kept. on_hour: told how many hours are done, and of how many."""
    names = _tenant_names(conn)
    hours = [hour for (hour,) in conn.execute(_SQL["hours"])]
    audited: list[HourAudit] = []
    for hour in hours:
        audited.append(audit_hour(conn, hour, names))
        if on_hour:
            on_hour(len(audited), len(hours))
    with conn.transaction():
        conn.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
        strays = [
            Difference(kind, hour, _name(names, tenant_id), events=events, samples=samples)
            for kind, tenant_id, hour, events, samples in conn.execute(_SQL["strays"], {"samples": _SAMPLES})
        ]
    excluded = conn.execute(_SQL["excluded"]).fetchone() or (0, 0)
    return Audit(audited, strays, names, *excluded)


def _not_duplicate(lost: int) -> Numbers:
    return Numbers(duplicate=-lost, enriched=-lost)


def _once_more(events: int) -> Numbers:
    """What a replay counts: further occurrences of events that were accepted before."""
    return Numbers(received=events, accepted=events, claimed=events, enriched=events, duplicate=events)


def _differing_counters(
    hour: datetime, names: dict[int, str], counted: dict[Group, Numbers], recounted: dict[Group, Numbers]
) -> list[Difference]:
    found: list[Difference] = []
    for tenant_id, lane in sorted(counted.keys() | recounted.keys()):
        ours = counted.get((tenant_id, lane), Numbers())
        theirs = recounted.get((tenant_id, lane), Numbers())
        for number in Numbers.__dataclass_fields__:
            one, other = getattr(ours, number), getattr(theirs, number)
            if one != other:
                name = _name(names, tenant_id)
                found.append(Difference("counter", hour, name, lane, number=number, counted=one, recounted=other))
    return found


def _tenant_names(conn: psycopg.Connection[Any]) -> dict[int, str]:
    return dict(conn.execute(_SQL["tenant_names"]).fetchall())


def _name(names: dict[int, str], tenant_id: int | None) -> str | None:
    return None if tenant_id is None else names.get(tenant_id, str(tenant_id))
