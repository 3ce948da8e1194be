"""How long a comparison of two outputs takes, against the plain anti-join that only finds the missing ids.

Both read the same rows, in turns, in one run: only the ratio says something.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.reconcile import reconcile

_SQL = queries("bench_reconcile")
_START = datetime(2026, 10, 5, 10, tzinfo=UTC)
_ROUNDS = 3
_WORK_MEM = "256MB"


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """Median seconds of both, over rows a side; differences: found by the comparison."""

    rows: int
    anti_join_s: float
    reconcile_s: float
    missing_found: int
    mismatched_found: int

    @property
    def ratio(self) -> float:
        return self.reconcile_s / self.anti_join_s

    def text(self) -> str:
        return (
            f"reconcile, {self.rows:,} rows a side: {self.reconcile_s:.1f} s; the anti-join for missing ids "
            f"alone {self.anti_join_s:.1f} s; ratio {self.ratio:.2f}; found {self.missing_found:,} missing and "
            f"{self.mismatched_found:,} mismatched"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def measure(database_url: str, rows: int) -> ReconcileResult:
    """Fill an empty, migrated database and compare, `_ROUNDS` times each in turns."""
    with connect(database_url, "bench", statement_timeout_s=0) as conn:
        _fill(conn, rows)
        end = _START + timedelta(hours=1)
        window = {"start": _START, "end": end}
        plain: list[float] = []
        whole: list[float] = []
        for _ in range(_ROUNDS):
            plain.append(_timed(lambda: _anti_join(conn, window)))
            whole.append(_timed(lambda: reconcile(conn, _START, end)))
        found = reconcile(conn, _START, end).totals
    return ReconcileResult(rows, statistics.median(plain), statistics.median(whole), found.dropped, found.mismatched)


def _fill(conn: psycopg.Connection[Any], rows: int) -> None:
    conn.execute("INSERT INTO control.tenants (name) SELECT 'tenant-' || n FROM generate_series(1, 400) AS n")
    conn.execute(_SQL["open"], {"start": _START})
    row = conn.execute(_SQL["shadow_epoch"]).fetchone()
    assert row
    conn.execute(_SQL["settle_at_once"])
    conn.execute(_SQL["fill_platform"], {"start": _START, "rows": rows, "epoch": row[0]})
    for query in ("fill_keys", "fill_batches", "fill_legacy"):
        conn.execute(_SQL[query], {} if query == "fill_legacy" else None)
    conn.execute("VACUUM ANALYZE")


def _anti_join(conn: psycopg.Connection[Any], window: dict[str, datetime]) -> None:
    with conn.transaction():
        conn.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
        conn.execute(_SQL["anti_join"], window)


def _timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
