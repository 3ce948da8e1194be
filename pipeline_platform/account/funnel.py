"""The counted funnel: what the counters say, and where events ended that were not delivered.

Reads account.funnel in one snapshot, so the numbers are consistent under load as well. An unbalanced funnel means that
a transaction counted wrongly: `pipeline-platform audit` names the events.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.account.legacy_pipeline import LegacyPipeline, legacy_pipeline_of
from pipeline_platform.account.numbers import Numbers, numbers_of
from pipeline_platform.db import queries
from pipeline_platform.tenants.tenants import tenant_id_of

_SQL = queries("account")
_ALL, _TENANT, _HOUR, _LANE = 7, 3, 5, 6


@dataclass(frozen=True, slots=True)
class Part:
    """The numbers of one tenant, hour or lane. balanced: every tenant, hour and lane in it is balanced."""

    numbers: Numbers
    balanced: bool
    tenant: str | None = None
    hour: datetime | None = None
    lane: str | None = None

    def to_json(self) -> dict[str, Any]:
        named = {"tenant": self.tenant, "hour": self.hour, "lane": self.lane}
        return {
            **{name: value for name, value in named.items() if value is not None},
            **self.numbers.totals(),
            "balanced": self.balanced,
        }


@dataclass(frozen=True, slots=True)
class Cause:
    """Why events were not delivered: outcome is rejected, dead_lettered or discarded."""

    failed_in: str
    cause: str
    fingerprint: str
    outcome: str
    events: int
    example: str


@dataclass(frozen=True, slots=True)
class Funnel:
    """The account of a selection: in total, by tenant, hour and lane, and the old pipeline's counts if there is one."""

    whole: Part
    tenants: list[Part]
    hours: list[Part]
    lanes: list[Part]
    causes: list[Cause]
    legacy_pipeline: LegacyPipeline | None

    @property
    def numbers(self) -> Numbers:
        return self.whole.numbers

    @property
    def balanced(self) -> bool:
        return self.whole.balanced

    def to_json(self) -> dict[str, Any]:
        return {
            **self.whole.to_json(),
            "stages": self.numbers.stages(),
            "tenants": [part.to_json() for part in self.tenants],
            "lanes": [part.to_json() for part in self.lanes],
            "hours": [part.to_json() for part in self.hours],
            "causes": [asdict(cause) for cause in self.causes],
            **({"legacy": self.legacy_pipeline.to_json()} if self.legacy_pipeline else {}),
        }


def funnel_of(conn: psycopg.Connection[Any], tenant: str | None = None, since: datetime | None = None) -> Funnel:
    """The account of one tenant (by name) or of all, from the hour that contains `since` on.

    conn: in autocommit mode, outside a transaction. NoSuchThingError if there is no such tenant.
    """
    hour = since.replace(minute=0, second=0, microsecond=0) if since else None
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        selection: dict[str, Any] = {"tenant_id": tenant_id_of(conn, tenant) if tenant else None, "since": hour}
        levels: dict[int, list[Part]] = {_ALL: [], _TENANT: [], _HOUR: [], _LANE: []}
        for row in cursor.execute(_SQL["funnel"], selection):
            part = Part(numbers_of(row), row["balanced"], row["tenant"], row["hour"], row["lane"])
            levels[row["level"]].append(part)
        causes = [Cause(**row) for row in cursor.execute(_SQL["causes"], selection)]
        legacy_pipeline = legacy_pipeline_of(conn, **selection)
    return Funnel(levels[_ALL][0], levels[_TENANT], levels[_HOUR], levels[_LANE], causes, legacy_pipeline)
