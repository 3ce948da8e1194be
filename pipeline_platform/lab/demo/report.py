"""The demo's measurements, its promises, and the table of before and after."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline_platform.lab.demo.figures import Latency, Second, Tenant

# About 85%. The simulated old pipeline shares its cores with all other processes, so its losses vary between runs.
LEGACY_PEAK_FROM, LEGACY_PEAK_TO = 0.75, 0.95
P95_SHARE_MAX = 0.25


@dataclass(frozen=True, slots=True)
class Side:
    """One pipeline: events, rates between 0 and 1, milliseconds, events lost, by where."""

    accepted: int
    delivered: int
    delivery_rate: float
    delivery_rate_peak: float
    p95_ms: float
    losses: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """The content of `demo-report.json`. seconds: from the start without any server to the last figure."""

    legacy: Side
    platform: Side
    dropped_found: int
    recovered: int
    missing_after: int
    doubled: int
    seed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def p95_share(self) -> float:
        """The platform's 95th percentile as a share of the old pipeline's."""
        return self.platform.p95_ms / self.legacy.p95_ms


@dataclass(frozen=True, slots=True)
class Promise:
    """A claim about the platform, the measurement, and whether the claim holds."""

    text: str
    measured: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the story, in seconds since the Unix epoch."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Details:
    """Further data for the page: by second, by tenant, by class of latency; the acts and the peak."""

    seconds: Sequence[Second]
    tenants: Sequence[Tenant]
    latencies: dict[str, Latency]
    acts: Sequence[Span]
    peak: Span


def promises(report: Report, *, acknowledged: int, account_agrees: bool) -> list[Promise]:
    """acknowledged: events that the senders got a 200 for. account_agrees: the audit agrees with the funnel."""
    old, new = report.legacy, report.platform
    return [
        Promise(
            "Every acknowledged event was accepted",
            f"{acknowledged:,} and {new.accepted:,}",
            acknowledged == new.accepted > 0,
        ),
        Promise(
            "The platform delivered everything that it accepted",
            f"{new.delivered:,} of {new.accepted:,}",
            new.delivered == new.accepted,
        ),
        Promise(
            "The old pipeline lost about 15% at the peak",
            f"{1 - old.delivery_rate_peak:.1%}",
            LEGACY_PEAK_FROM <= old.delivery_rate_peak <= LEGACY_PEAK_TO,
        ),
        Promise(
            "p95 is at most a quarter of the old pipeline's, at the peak",
            f"{new.p95_ms:,.0f} ms and {old.p95_ms:,.0f} ms",
            report.p95_share <= P95_SHARE_MAX,
        ),
        Promise(
            "Everything that the old pipeline dropped was recovered",
            f"{report.recovered:,} of {report.dropped_found:,}",
            report.recovered == report.dropped_found > 0,
        ),
        Promise(
            "Production has every accepted event once",
            f"{report.missing_after} missing, {report.doubled} doubled",
            report.missing_after == report.doubled == 0,
        ),
        Promise(
            "The recount of all rows agrees with the counters",
            "agrees" if account_agrees else "differs",
            account_agrees,
        ),
    ]


def rows(report: Report) -> list[tuple[str, str, str]]:
    """The table of before and after: name, the old pipeline, the platform."""
    old, new = report.legacy, report.platform
    return [
        ("accepted", f"{old.accepted:,}", f"{new.accepted:,}"),
        ("delivered", f"{old.delivered:,}", f"{new.delivered:,}"),
        ("delivery rate", _percent(old.delivery_rate), _percent(new.delivery_rate)),
        ("delivery rate at the peak", _percent(old.delivery_rate_peak), _percent(new.delivery_rate_peak)),
        ("p95 processing latency at the peak", f"{old.p95_ms:,.0f} ms", f"{new.p95_ms:,.0f} ms"),
        ("where events failed", _places(old.losses), _places(new.losses)),
        ("dropped by the old pipeline", f"{report.dropped_found:,}", ""),
        ("recovered by the platform", "", f"{report.recovered:,}"),
        ("missing in production, after all", "", f"{report.missing_after:,}"),
        ("doubled in production", "", f"{report.doubled:,}"),
    ]


def table(report: Report) -> Table:
    """The table of before and after for a terminal."""
    shown = Table("", "before: old pipeline", "after: this platform", title="Before and after, measured in this run")
    for row in rows(report):
        shown.add_row(*row)
    return shown


def write_json(report: Report, path: Path) -> None:
    """Replace the file atomically."""
    unfinished = path.with_suffix(".json.new")
    unfinished.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    unfinished.replace(path)


def _percent(rate: float) -> str:
    """A percentage that is never rounded up to 100%."""
    return f"{int(rate * 10_000) / 100:.2f}%"


def _places(lost: dict[str, int]) -> str:
    named = sorted(((events, place) for place, events in lost.items() if events), reverse=True)
    return ", ".join(f"{place} {events:,}" for events, place in named) or "nowhere"
