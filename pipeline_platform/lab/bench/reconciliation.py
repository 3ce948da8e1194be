"""The duration of a comparison of two outputs, relative to the plain anti-join that only finds the missing ids.

Both read the same rows, in turns, in one run: only the ratio is meaningful. There are two cases: the outputs agree
except for some planted differences, as before a cutover; the old pipeline drops 15% of all events.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.migration.reconcile import reconcile

_SQL = queries("bench_reconcile")
_START = datetime(2026, 10, 5, 10, tzinfo=UTC)
_WINDOW = {"start": _START, "end": _START + timedelta(hours=1)}
_ROUNDS = 5
# Planted differences of each of four kinds, in a thousand rows as in five million.
_PLANTED = 50
_WORK_MEM = "256MB"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each round of both, which took turns. ratio: the median of the rounds' ratios."""

    anti_join_s: Sequence[float]
    reconcile_s: Sequence[float]

    @property
    def ratio(self) -> float:
        return statistics.median(whole / plain for plain, whole in zip(self.anti_join_s, self.reconcile_s, strict=True))

    def text(self) -> str:
        plain, whole = (statistics.median(seconds) for seconds in (self.anti_join_s, self.reconcile_s))
        return f"{whole:.1f} s, the anti-join for missing ids alone {plain:.1f} s, ratio {self.ratio:.2f}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """wrongly_named: planted differences that were not found or classified correctly, and found ones not planted."""

    rows: int
    planted: int
    wrongly_named: int
    agreeing: Timing
    dropping: Timing

    def text(self) -> str:
        return (
            f"reconcile, {self.rows:,} rows a side, {self.planted:,} planted differences, {self.wrongly_named:,} not "
            f"found or false: {self.agreeing.text()}; with 15% dropped: {self.dropping.text()}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "agreeing": self.agreeing.to_json(), "dropping": self.dropping.to_json()}


def measure(database_url: str, rows: int) -> ReconcileResult:
    """Fill an empty, migrated database and compare, `_ROUNDS` times each in turns."""
    with connect(database_url, "bench", statement_timeout_s=0) as conn:
        _fill(conn, rows)
        planted = _plant(conn)
        agreeing = _measure(conn)
        row = conn.execute(_SQL["wrongly_named"]).fetchone()
        assert row
        conn.execute(_SQL["drop_some"])
        conn.execute("VACUUM ANALYZE legacy.events")
        return ReconcileResult(rows, planted, row[0], agreeing, _measure(conn))


def _measure(conn: psycopg.Connection[Any]) -> Timing:
    plain: list[float] = []
    whole: list[float] = []
    _anti_join(conn)
    for _ in range(_ROUNDS):
        plain.append(_timed(lambda: _anti_join(conn)))
        whole.append(_timed(lambda: reconcile(conn, _WINDOW["start"], _WINDOW["end"])))
    return Timing(plain, whole)


def _fill(conn: psycopg.Connection[Any], rows: int) -> None:
    conn.execute("INSERT INTO control.tenants (name) SELECT 'tenant-' || n FROM generate_series(1, 400) AS n")
    conn.execute(_SQL["open"], {"start": _START})
    row = conn.execute(_SQL["shadow_epoch"]).fetchone()
    assert row
    conn.execute(_SQL["settle_at_once"])
    conn.execute(_SQL["fill_platform"], {"start": _START, "rows": rows, "epoch": row[0]})
    for query in ("fill_keys", "fill_batches", "fill_legacy"):
        conn.execute(_SQL[query])


def _plant(conn: psycopg.Connection[Any]) -> int:
    psycopg.ClientCursor(conn).execute(_SQL["plant"], {"each": _PLANTED})
    for query in ("plant_extra", "plant_values", "plant_missing"):
        conn.execute(_SQL[query])
    conn.execute("VACUUM ANALYZE")
    return 4 * _PLANTED


def _anti_join(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction():
        conn.execute("SELECT set_config('work_mem', %s, true)", (_WORK_MEM,))
        conn.execute(_SQL["anti_join"], _WINDOW)


def _timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
