"""The objectives and the remaining error budget, by tenant and window. Exact, from the account.

Events are judged that have an outcome or should have one. Delivered events and duplicates are good. Dead letters and
events that wait longer than the allowed lag are bad. The budget of a window is the part of its events that may be bad.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from pipeline_platform.account.numbers import delivery_rate
from pipeline_platform.db import queries
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.conditions import parameters

_SQL = queries("alerts")
Conn = psycopg.Connection[Any]

# The current hour and the hours before it: an hour, a day, thirty days.
WINDOWS_H = (1, 24, 720)


@dataclass(frozen=True, slots=True)
class Budget:
    """The error budget of one window and one tenant (None: all). rate: None if no event was judged."""

    window_h: int
    tenant: str | None
    good: int
    bad: int
    rate: float | None
    allowed: float
    left: float | None
    is_met: bool


def objectives_of(conn: Conn, settings: Settings) -> dict[str, Any]:
    """The objectives and whether they are met. `met` is for all tenants together, and the newest latency and lag."""
    asked = parameters(settings)
    (lag_s,) = conn.execute(_SQL["lag_now"]).fetchone() or (0.0,)
    (p95_ms,) = conn.execute(_SQL["latency_now"], asked).fetchone() or (None,)
    rows = conn.execute(_SQL["objectives"], asked | {"windows": list(WINDOWS_H)}).fetchall()
    budgets = [_budget(settings, *row) for row in rows]
    whole = [each for each in budgets if each.tenant is None]
    lag = {"s": lag_s, "objective_s": settings.objective_lag_s, "is_met": lag_s <= settings.objective_lag_s}
    latency = {
        "p95_ms": p95_ms,
        "objective_ms": settings.objective_latency_p95_ms,
        "window_s": settings.objective_latency_window_s,
        "is_met": p95_ms is None or p95_ms <= settings.objective_latency_p95_ms,
    }
    return {
        "met": all(each.is_met for each in whole) and lag["is_met"] and latency["is_met"],
        "delivered_ratio": settings.objective_delivered_ratio,
        "lag": lag,
        "latency": latency,
        "windows": _plain(whole),
        "tenants": _plain(each for each in budgets if each.tenant is not None),
    }


def _budget(
    settings: Settings, window_h: int, tenant: str | None, delivered: int, dead_lettered: int, overdue: int
) -> Budget:
    bad = dead_lettered + overdue
    judged = delivered + bad
    allowed = (1 - settings.objective_delivered_ratio) * judged
    return Budget(
        window_h,
        tenant,
        delivered,
        bad,
        rate=delivery_rate(delivered, judged),
        allowed=allowed,
        left=1 - bad / allowed if judged else None,
        is_met=bad <= allowed,
    )


def _plain(budgets: Iterable[Budget]) -> list[dict[str, Any]]:
    return [asdict(each) for each in budgets]
