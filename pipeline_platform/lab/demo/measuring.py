"""What the acts measured, and the report made of it. All other figures are counted from rows."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline_platform.account.numbers import delivery_rate
from pipeline_platform.lab.demo import figures
from pipeline_platform.lab.demo.figures import Conn
from pipeline_platform.lab.demo.report import Report, Side, Span


@dataclass(slots=True)
class Measured:
    """What only the acts know. found, recovered, missing: dropped events; missing after the recovery."""

    peak: Span = field(default_factory=lambda: Span("peak", 0, 0))
    latencies: dict[str, figures.Latency] = field(default_factory=dict[str, figures.Latency])
    found: int = 0
    recovered: int = 0
    missing: int = 0

    def peak_window(self) -> tuple[datetime, datetime]:
        """When the peak began and ended."""
        return datetime.fromtimestamp(self.peak.begin, UTC), datetime.fromtimestamp(self.peak.end, UTC)


def report_of(conn: Conn, measured: Measured, *, seed: int, began: float) -> Report:
    """The report. began: time.monotonic() at the start of the demo."""
    totals = figures.totals(conn)
    peak = figures.window(conn, *measured.peak_window())
    missing, doubled = figures.production(conn)
    old = Side(
        accepted=totals["legacy_accepted"],
        delivered=totals["legacy_delivered"],
        delivery_rate=delivery_rate(totals["legacy_delivered"], totals["legacy_accepted"]) or 0.0,
        delivery_rate_peak=delivery_rate(peak.legacy_delivered, peak.accepted) or 0.0,
        p95_ms=round(measured.latencies["legacy"].p95_ms, 1),
        losses=figures.losses(conn, totals["legacy_accepted"], totals["legacy_delivered"]),
    )
    new = Side(
        accepted=totals["accepted"],
        delivered=totals["delivered"],
        delivery_rate=delivery_rate(totals["delivered"], totals["accepted"]) or 0.0,
        delivery_rate_peak=delivery_rate(peak.delivered, peak.accepted) or 0.0,
        p95_ms=round(measured.latencies["platform"].p95_ms, 1),
        losses=figures.dead_letters(conn),
    )
    # Includes events accepted after the last comparison.
    return Report(
        legacy=old,
        platform=new,
        dropped_found=measured.found,
        recovered=measured.recovered,
        missing_after=max(measured.missing, missing),
        doubled=doubled,
        seed=seed,
        seconds=round(time.monotonic() - began, 1),
    )
