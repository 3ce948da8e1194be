"""Events received, delivered and lost on one day, by tenant: read from the account, compared with the rows.

Lost are events without an outcome in the account, and delivered events without a row. Rejected events (kept in the
quarantine) and dead letters are not lost. If any event is lost, an operator runs `pipeline-platform audit`, which names
the events while their hour is kept.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.account.numbers import Numbers, numbers_of, total
from pipeline_platform.db import queries

_SQL = queries("report")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's day.

    numbers: without replays. rows: its delivered events that are in a table. replayed: events that replays processed
    again. replay_delivered: those of them that were not delivered before.
    """

    name: str
    numbers: Numbers
    rows: int
    replayed: int = 0
    replay_delivered: int = 0

    @property
    def lost(self) -> int:
        """Accepted events without an outcome and not in flight, and delivered events without a row."""
        known = self.numbers
        outcomes = known.delivered + known.duplicate + known.dead_lettered + known.discarded + known.in_flight
        return max(0, known.accepted - outcomes) + max(0, self._in_account - self.rows)

    @property
    def extra(self) -> int:
        """Rows without a delivered event in the account."""
        return max(0, self.rows - self._in_account)

    @property
    def _in_account(self) -> int:
        """Events that have a row, as the account says."""
        return self.numbers.delivered + self.replay_delivered

    def to_json(self) -> dict[str, Any]:
        return {
            "tenant": self.name,
            **self.numbers.totals(),
            "replayed": self.replayed,
            "lost": self.lost,
            "extra": self.extra,
        }


@dataclass(frozen=True, slots=True)
class Hour:
    """The events of an hour. failed: rejected, or a dead letter now."""

    hour: datetime
    received: int
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Cause:
    """Why events were not delivered."""

    outcome: str
    cause: str
    events: int
    tenants: int


@dataclass(frozen=True, slots=True)
class Daily:
    """A day (UTC, of received_at). is_final: it is over and sealed, and nothing of it is in flight."""

    day: date
    tenants: Sequence[Tenant]
    hours: Sequence[Hour]
    causes: Sequence[Cause]
    is_final: bool

    @property
    def numbers(self) -> Numbers:
        return total(tenant.numbers for tenant in self.tenants)

    @property
    def lost(self) -> int:
        return sum(tenant.lost for tenant in self.tenants)

    @property
    def extra(self) -> int:
        return sum(tenant.extra for tenant in self.tenants)

    @property
    def replayed(self) -> int:
        """Events that replays processed again. They are in no other number."""
        return sum(tenant.replayed for tenant in self.tenants)

    def to_json(self) -> dict[str, Any]:
        return {
            "day": self.day.isoformat(),
            "is_final": self.is_final,
            **self.numbers.totals(),
            "replayed": self.replayed,
            "lost": self.lost,
            "extra": self.extra,
            "delivery_rate": self.numbers.delivery_rate,
            "tenants": [tenant.to_json() for tenant in self.tenants],
            "hours": [asdict(hour) for hour in self.hours],
            "causes": [asdict(cause) for cause in self.causes],
        }


def count_day(conn: psycopg.Connection[Any], day: date) -> Daily:
    """Count one day, in one snapshot. conn: in autocommit mode, outside a transaction."""
    start = datetime.combine(day, time(), UTC)
    params = {"start": start, "end": start + timedelta(days=1)}
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Counting a busy day's rows takes longer than the usual statement time-out.
        cursor.execute("SET LOCAL statement_timeout = 0")
        rows: dict[int, int] = dict(conn.execute(_SQL["rows"], params).fetchall())
        found = cursor.execute(_SQL["tenants"], params).fetchall()
        tenants = [
            Tenant(
                row["tenant"],
                numbers_of(row),
                rows.pop(row["tenant_id"], 0),
                row["replayed"],
                row["replay_delivered"],
            )
            for row in found
        ]
        # Tenants that have rows but are not in the account.
        tenants += [Tenant(str(tenant_id), Numbers(), count) for tenant_id, count in sorted(rows.items())]
        hours = [Hour(*row) for row in conn.execute(_SQL["hours"], params).fetchall()]
        causes = [Cause(**row) for row in cursor.execute(_SQL["causes"], params)]
        (is_over,) = conn.execute(_SQL["is_over"], params).fetchone() or (False,)
    in_flight = sum(tenant.numbers.in_flight for tenant in tenants)
    return Daily(day, tenants, hours, causes, bool(is_over) and in_flight == 0)
