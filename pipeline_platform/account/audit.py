"""Recounts every event of the kept hours by its identity and compares the result with the counters.

The recount finds what counters cannot show: an event that was counted as delivered and is in no table, a row that no
accepted event explains, one identity in two rows. Each hour is recounted in its own snapshot and compared with the
counters of that snapshot. So the result is exact under load, and no transaction stays open for long. Hours whose
batches were dropped cannot be recounted by event; the result gives their number.

A second check counts production independently of the code that wrote it. It counts the rows of all hours by tenant and
hour and compares them with the account. It also looks for identities with two rows where the second should have been
recognised as a duplicate. A day is counted again only after PostgreSQL reports a change of its tables.

A difference is a bug or a manual change: keep the output, and do not repair the counters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from pipeline_platform.account.numbers import Numbers, total
from pipeline_platform.db import queries

_SQL, _PRODUCTION = queries("account"), queries("production")
# The default of the setting retention_h.
RETENTION = timedelta(hours=72)
_SAMPLES = 5
# An hour of a million events is sorted and hashed in memory: 3 times as fast as with the default of 4 MB (measured).
_WORK_MEM = "256MB"

Group = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference in one hour.

    kind: `counter` or `production`: the account has `counted` events, the rows have `recounted`. `exchanged`: as many
    rows as at the last count, but of other events. `lost`, `doubled`, `extra`, `altered`, `row_without_key`,
    `key_without_row`: there are `events` of them, and samples names a few (event_id, batch_id, event_index).
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
class Production:
    """Production counted by itself: days with rows, days counted by this audit, and rows of both tables."""

    days: int = 0
    counted_days: int = 0
    rows: int = 0
    shadow_rows: int = 0
    differences: Sequence[Difference] = ()


@dataclass(frozen=True, slots=True)
class HourAudit:
    """One hour recounted. groups, counted: by (tenant_id, lane)."""

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
    """All kept hours recounted. excluded_hours, excluded_events: of dropped batches, which cannot be recounted."""

    hours: list[HourAudit]
    strays: list[Difference]
    names: dict[int, str] = field(repr=False)
    excluded_hours: int = 0
    excluded_events: int = 0
    production: Production = field(default_factory=Production)

    @property
    def numbers(self) -> Numbers:
        return total(hour.numbers for hour in self.hours)

    @property
    def differences(self) -> list[Difference]:
        return [difference for hour in self.hours for difference in hour.differences] + [
            *self.strays,
            *self.production.differences,
        ]

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
            "production": {
                "rows": self.production.rows,
                "shadow_rows": self.production.shadow_rows,
                "days": self.production.days,
                "counted_days": self.production.counted_days,
            },
            "excluded": {"hours": self.excluded_hours, "received": self.excluded_events},
            "differences": self.differences,
        }


def audit_hour(conn: psycopg.Connection[Any], hour: datetime, names: dict[int, str] | None = None) -> HourAudit:
    """Recount one UTC hour of received_at and compare it with the account, in one snapshot.

    conn: in autocommit mode, outside a transaction, with a statement time-out of at least some minutes. names: names of
    tenants by id; read from the database if not given.
    """
    names = names if names is not None else tenant_names(conn)
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


def audit(
    conn: psycopg.Connection[Any],
    on_hour: Callable[[int, int], None] | None = None,
    *,
    retention: timedelta = RETENTION,
    full: bool = False,
) -> Audit:
    """Recount every hour that is still kept, then production.

    on_hour: called with the number of hours that are done and the number of all hours. retention: the minimum time for
    which an identity is known. full: count all of production again, and look for doubled identities in all of it.
    """
    names = tenant_names(conn)
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
    production = audit_production(conn, names, retention, full=full)
    return Audit(audited, strays, names, excluded[0], excluded[1], production)


def audit_production(
    conn: psycopg.Connection[Any], names: dict[int, str], retention: timedelta, *, full: bool = False
) -> Production:
    """Count the days whose rows changed, compare all of them with the account, and look for doubled identities."""
    days = conn.execute(_PRODUCTION["days"], {"retention": retention}).fetchall()
    changes = {day: said for day, said, *_ in days}
    due = [day for day, _, is_changed, _ in days if full or is_changed]
    found = [each for day in due for each in _count_day(conn, day, changes[day], names)]
    # Earlier counts are compared with the current account. Where they differ, the rows may have changed since, so the
    # day is counted again.
    for (day,) in conn.execute(_PRODUCTION["differing_days"]).fetchall():
        if day not in due:
            due.append(day)
            found += _count_day(conn, day, changes.get(day), names)
    looked_at = [day for day, _, _, is_near in days if full or is_near or day in due]
    production, shadow = conn.execute(_PRODUCTION["rows"]).fetchone() or (0, 0)
    doubled = _doubled(conn, looked_at, retention, names)
    return Production(len(days), len(due), production, shadow, [*found, *doubled])


def production_of_hour(conn: psycopg.Connection[Any], hour: datetime) -> list[Difference]:
    """Tenants whose rows in one hour differ in number from the account's delivered events; also for a dropped hour."""
    rows = conn.execute(_PRODUCTION["of_hour"], {"hour": hour}).fetchall()
    names = tenant_names(conn) if rows else {}
    return [
        _not_as_delivered("production", _name(names, tenant_id), hour, delivered, counted)
        for tenant_id, delivered, counted in rows
    ]


def _count_day(
    conn: psycopg.Connection[Any], day: datetime, changes: str | None, names: dict[int, str]
) -> list[Difference]:
    rows = conn.execute(_PRODUCTION["count_day"], {"day": day, "changes": changes}).fetchall()
    return [
        _not_as_delivered(kind, _name(names, tenant_id), hour, delivered, counted)
        for kind, tenant_id, hour, delivered, counted in rows
    ]


def _not_as_delivered(kind: str, tenant: str | None, hour: datetime, delivered: int, rows: int) -> Difference:
    return Difference(kind, hour, tenant, number="delivered", counted=delivered, recounted=rows)


def _doubled(
    conn: psycopg.Connection[Any], days: list[datetime], retention: timedelta, names: dict[int, str]
) -> list[Difference]:
    params = {"days": days, "retention": retention, "samples": _SAMPLES}
    with conn.transaction():
        conn.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
        rows = conn.execute(_PRODUCTION["doubled"], params).fetchall()
    return [
        Difference("doubled", hour, _name(names, tenant_id), events=events, samples=samples)
        for tenant_id, hour, events, samples in rows
    ]


def _not_duplicate(lost: int) -> Numbers:
    return Numbers(duplicate=-lost, enriched=-lost)


def _once_more(events: int) -> Numbers:
    """The numbers of a replay: repeated occurrences of events that were accepted before."""
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


def tenant_names(conn: psycopg.Connection[Any]) -> dict[int, str]:
    return dict(conn.execute(_SQL["tenant_names"]).fetchall())


def _name(names: dict[int, str], tenant_id: int | None) -> str | None:
    return None if tenant_id is None else names.get(tenant_id, str(tenant_id))
