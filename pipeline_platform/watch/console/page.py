"""The page as HTML: the whole page when it is opened, single sections when they change.

The templates escape everything from outside. Only the rendered sections are marked safe.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline_platform.account.legacy_pipeline import LegacyPipeline
from pipeline_platform.account.numbers import Numbers
from pipeline_platform.settings import Settings
from pipeline_platform.watch.console import wording
from pipeline_platform.watch.console.charts import charts_of
from pipeline_platform.watch.console.last_hour import Point
from pipeline_platform.watch.console.snapshot import Platform, View
from pipeline_platform.watch.console.verdict import verdict_of

SECTIONS = ("verdict", "alerts", "funnel", "charts", "tenants", "dead_letters", "queue", "replays")
_CAUSES = 3
_ALERTS = 10


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of a funnel. width: per cent; ends: what ends here, as label, events, is_bad; causes: name, events."""

    name: str
    arrived: int
    rate: float | None
    width: float
    ends: Sequence[tuple[str, int, bool]]
    causes: Sequence[tuple[str, int]]


class Pages:
    """The templates, and the data of this console that they need."""

    def __init__(self, settings: Settings, assets: dict[str, str]) -> None:
        """assets: the addresses of stylesheet and scripts."""
        self._settings = settings
        self._assets = assets
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        words = ("number", "rate", "share", "milliseconds", "duration", "gibibytes", "clock", "day_and_minute")
        self._environment.filters.update({name: getattr(wording, name) for name in words})
        self._environment.filters["shell"] = shlex.quote

    def sections(
        self, platform: Platform, view: View, rates: dict[str, float], points: Sequence[Point]
    ) -> dict[str, str]:
        """All sections of one view, by name."""
        old = view.funnel.legacy_pipeline
        charts = charts_of(points, with_legacy=old is not None)
        context: dict[str, Any] = {
            "platform": platform,
            "view": view,
            "numbers": view.funnel.numbers,
            "old": old,
            "verdict": verdict_of(platform, view, self._settings),
            "ours": _stages(view, rates),
            "theirs": _legacy_stages(old, rates) if old else [],
            "charts": [(chart, json.dumps(chart.figure)) for chart in charts],
            "disk_free_min": self._settings.disk_free_bytes_min,
            "alerts_shown": _ALERTS,
        }
        return {name: self._render(f"sections/{name}.html", **context) for name in SECTIONS}

    def status(self, platform: Platform | None, away_since: datetime | None) -> str:
        """The section that says how old the numbers are."""
        return self._render("sections/status.html", platform=platform, away_since=away_since)

    def whole(self, sections: dict[str, str], tenant: str | None) -> str:
        trusted = {name: Markup(html) for name, html in sections.items()}  # noqa: S704 - rendered above, escaped
        return self._render("page.html", sections=trusted, names=SECTIONS, tenant=tenant)

    def notice(self, title: str, text: str, *, asks_token: bool = False) -> str:
        """A page with a single message."""
        return self._render("notice.html", title=title, text=text, asks_token=asks_token)

    def _render(self, template: str, **context: Any) -> str:
        return self._environment.get_template(template).render(context, assets=self._assets)


def _stages(view: View, rates: dict[str, float]) -> list[Stage]:
    numbers = view.funnel.numbers
    return [
        Stage(
            row["stage"],
            row["arrived"],
            rates.get(row["stage"]),
            _width(row["arrived"], numbers.received),
            _ends(row, numbers),
            _causes(view, row["stage"]),
        )
        for row in numbers.stages()
    ]


def _ends(row: dict[str, Any], numbers: Numbers) -> list[tuple[str, int, bool]]:
    """Events that end at this stage. Waiting events and duplicates are not bad."""
    failed = "rejected" if row["stage"] == "received" else "dead or discarded"
    ends = [(failed, row["failed"], True), ("waiting", row["waiting"], False), ("duplicate", row["duplicate"], False)]
    return [end for end in ends if end[1] > 0]


def _causes(view: View, stage: str) -> list[tuple[str, int]]:
    """The causes of what failed after a stage: the failed part of processing leads to the next stage."""
    failing = {"received": ("validate",), "claimed": ("claim", "enrich", "transform"), "enriched": ("load",)}
    causes = [cause for cause in view.funnel.causes if cause.failed_in in failing.get(stage, ())]
    return [(cause.cause, cause.events) for cause in causes[:_CAUSES]]


def _legacy_stages(old: LegacyPipeline, rates: dict[str, float]) -> list[Stage]:
    return [
        Stage(
            stage.stage,
            stage.arrived,
            rates.get(f"legacy {stage.stage}"),
            _width(stage.arrived, old.mirrored),
            [("failed", stage.failed, True)] if stage.failed else [],
            [(row["cause"], row["events"]) for row in old.causes if row["stage"] == stage.stage][:_CAUSES],
        )
        for stage in old.stages
    ]


def _width(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole > 0 else 0.0
