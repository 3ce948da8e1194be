"""The report as one HTML file. It includes the charts' library and loads nothing from elsewhere."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline_platform.lab.demo.report import Details, Promise, Report, Span, rows
from pipeline_platform.lab.demo.traffic import TENANTS
from pipeline_platform.watch.reports.frame import GREY, NEW, OLD, Figure, Tile, chart
from pipeline_platform.watch.reports.frame import write_page as frame_page

_CLASSES = 40
_DECADES = 6


def write_page(report: Report, details: Details, kept: Sequence[Promise], path: Path) -> None:
    """Replace the file atomically."""
    frame_page(
        str(path),
        Path(__file__).parent / "page.html",
        title="Before and after: demo report",
        subtitle=_subtitle(report),
        figures=_tiles(report),
        compared=rows(report),
        promises=kept,
        rates=chart(_rates(details), 340),
        losses=chart(_losses(report), 300),
        latency=chart(_latency(report, details), 300),
        tenants=chart(_tenants(details), 320),
    )


def _subtitle(report: Report) -> str:
    return (
        f"One day of {TENANTS} tenants in {report.seconds:.0f} seconds, seed {report.seed}: every event "
        "went to both pipelines, on the same machine, at the same time."
    )


def _tiles(report: Report) -> list[Tile]:
    old, new = report.legacy, report.platform
    return [
        Tile("new", f"{int(new.delivery_rate * 10_000) / 100:.2f}%", "of accepted events delivered by the platform"),
        Tile("old", f"{old.delivery_rate_peak:.1%}", "delivered by the old pipeline at the peak"),
        Tile("new", f"{1 / report.p95_share:,.0f}×", "faster at the peak (95th percentile)"),
        Tile("good", f"{report.recovered:,}", f"of {report.dropped_found:,} dropped events recovered"),
    ]


def _rates(details: Details) -> Figure:
    at = [second.second.isoformat() for second in details.seconds]
    series: Mapping[str, tuple[str, list[int]]] = {
        "accepted": (GREY, [second.accepted for second in details.seconds]),
        "delivered by the platform": (NEW, [second.platform for second in details.seconds]),
        "delivered by the old pipeline": (OLD, [second.legacy for second in details.seconds]),
    }
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": at,
            "y": values,
            "line": {"color": colour, "width": 1 if colour == GREY else 2},
            **({"fill": "tozeroy", "fillcolor": "rgba(138,148,161,0.18)"} if colour == GREY else {}),
        }
        for name, (colour, values) in series.items()
    ]
    layout: Figure = {
        "shapes": [_border(act.begin) for act in details.acts] + [_band(details.peak)],
        "annotations": [_label(act) for act in details.acts],
        "xaxis": {"showgrid": False, "tickformat": "%H:%M:%S"},
        "yaxis": {"rangemode": "tozero", "gridcolor": GREY, "zeroline": False},
        "margin": {"l": 56, "r": 16, "t": 60, "b": 28},
        "legend": {"orientation": "h", "y": 1.24, "x": 0},
        "hovermode": "x unified",
    }
    return {"data": lines, "layout": layout}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _border(at: float) -> Figure:
    moment = _moment(at)
    line = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": moment, "x1": moment, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _band(span: Span) -> Figure:
    band = {"x0": _moment(span.begin), "x1": _moment(span.end), "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "rect", **band, "fillcolor": "rgba(224,118,59,0.10)", "line": {"width": 0}, "layer": "below"}


def _label(act: Span) -> Figure:
    place = {"x": _moment(act.begin), "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return {"text": act.name.replace("_", " "), "showarrow": False, **place}


def _losses(report: Report) -> Figure:
    lost = list(report.legacy.losses.items())[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [stage for stage, _ in lost],
        "x": [events for _, events in lost],
        "text": [f"{events:,}" for _, events in lost],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": OLD},
        "hoverinfo": "skip",
    }
    layout: Figure = {
        "xaxis": {"visible": False, "range": [0, max(1, *(events for _, events in lost)) * 1.15]},
        "yaxis": {"showgrid": False},
        "margin": {"l": 90, "r": 16, "t": 8, "b": 8},
    }
    return {"data": [bars], "layout": layout}


def _latency(report: Report, details: Details) -> Figure:
    sides = (("platform", "the platform", NEW, report.platform), ("legacy", "the old pipeline", OLD, report.legacy))
    data: list[Figure] = []
    shapes: list[Figure] = []
    for pipeline, name, colour, side in sides:
        classes = details.latencies[pipeline].classes
        data.append(_distribution(classes, name, colour))
        line = {"color": colour, "width": 2, "dash": "dot"}
        shapes.append(
            {"type": "line", "x0": side.p95_ms, "x1": side.p95_ms, "y0": 0, "y1": 1, "yref": "paper", "line": line}
        )
    layout: Figure = {
        "shapes": shapes,
        "xaxis": {
            "type": "log",
            "showgrid": False,
            "range": [0, max(3.2, 1.2 * math.log10(max(side.p95_ms for *_, side in sides)))],
            "tickvals": [1, 10, 100, 1_000, 10_000, 100_000],
            "ticktext": ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"],
        },
        "yaxis": {"tickformat": ".0%", "rangemode": "tozero", "gridcolor": GREY, "zeroline": False},
    }
    return {"data": data, "layout": layout}


def _distribution(classes: Counter[int], name: str, colour: str) -> Figure:
    found = range(max(0, min(classes) - 1), max(classes) + 2)
    total = classes.total()
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "line": {"color": colour, "width": 2, "shape": "hvh"},
        "fill": "tozeroy",
        "x": [10 ** ((number - 0.5) * _DECADES / _CLASSES) for number in found],
        "y": [classes[number] / total for number in found],
        "hovertemplate": "about %{x:,.0f} ms: %{y:.1%}",
    }


def _tenants(details: Details) -> Figure:
    def dots(name: str, colour: str, delivered: list[int]) -> Figure:
        share = [done / one.events for done, one in zip(delivered, details.tenants, strict=True)]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [one.events for one in details.tenants],
            "y": share,
            "text": [one.tenant for one in details.tenants],
            "marker": {"color": colour, "size": 6, "opacity": 0.65},
            "hovertemplate": "%{text}: %{y:.1%} of %{x:,} events",
        }

    return {
        "data": [
            dots("the old pipeline", OLD, [one.legacy for one in details.tenants]),
            dots("the platform", NEW, [one.platform for one in details.tenants]),
        ],
        "layout": {
            "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
            "xaxis": {
                "type": "log",
                "title": {"text": "events sent", "font": {"size": 13}},
                "showgrid": False,
                "dtick": 1,
            },
            "yaxis": {"tickformat": ".0%", "gridcolor": GREY, "zeroline": False},
        },
    }
