"""The charts as plotly figures. Colours are names that console.js resolves, so one figure serves light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_platform.watch.console.last_hour import Point
from pipeline_platform.watch.console.wording import clock, milliseconds, rate

_TABLE_ROWS = 12
_SHORT_S = 600
_LOG_TICKS = {
    "tickvals": [1, 10, 100, 1_000, 10_000, 60_000],
    "ticktext": ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "1 min"],
}

Figure = dict[str, Any]
Line = tuple[str, str, Callable[[Point], float | None]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, and its text version: one sentence, and a table of some points (time, then a cell for each line)."""

    name: str
    title: str
    figure: Figure
    summary: str
    columns: Sequence[str]
    rows: list[list[str]]


def charts_of(points: Sequence[Point], *, with_legacy: bool) -> list[Chart]:
    rates: list[Line] = [
        ("accepted", "grey", lambda point: point.rates.get("accepted")),
        ("delivered", "ours", lambda point: point.rates.get("delivered")),
    ]
    if with_legacy:
        rates.append(("the old pipeline delivered", "theirs", lambda point: point.rates.get("legacy write")))
    latencies: list[Line] = [
        ("p99", "grey", lambda point: point.latency.p99_ms),
        ("p95", "ours", lambda point: point.latency.p95_ms),
        ("p50", "soft", lambda point: point.latency.p50_ms),
    ]
    return [
        _chart("rates", "Events a second", points, rates, rate, "linear"),
        _chart("latency", "From acceptance to delivery", points, latencies, milliseconds, "log"),
    ]


def _chart(
    name: str, title: str, points: Sequence[Point], lines: list[Line], say: Callable[[float | None], str], scale: str
) -> Chart:
    at = [f"{point.at:%Y-%m-%d %H:%M:%S}" for point in points]
    values = [[value(point) for point in points] for _, _, value in lines]
    traces = [_trace(label, colour, at, series) for (label, colour, _), series in zip(lines, values, strict=True)]
    layout: Figure = {
        "xaxis": {"type": "date", "tickformat": _tick_format(points), "hoverformat": "%H:%M:%S UTC", "nticks": 5},
        "yaxis": {"type": scale, "rangemode": "tozero", "nticks": 5, "hoverformat": ",.1f"},
    }
    if scale == "log":
        layout["yaxis"] |= _decades(values)
    step = max(1, len(points) // _TABLE_ROWS)
    rows = [[clock(point.at), *(say(value(point)) for _, _, value in lines)] for point in list(points)[::-1][::step]]
    return Chart(name, title, {"data": traces, "layout": layout}, _summary(lines, values, say), _labels(lines), rows)


def _tick_format(points: Sequence[Point]) -> str:
    """The format of times: minutes, if that makes all ticks different."""
    is_short = not points or (points[-1].at - points[0].at).total_seconds() < _SHORT_S
    return "%H:%M:%S" if is_short else "%H:%M"


def _decades(values: list[list[float | None]]) -> Figure:
    """An axis of milliseconds from 1 to beyond the largest; at least to 100, so that small differences look small."""
    largest = max((value for series in values for value in series if value is not None), default=1.0)
    return {**_LOG_TICKS, "range": [0, max(2.0, math.log10(largest * 1.3))]}


def _trace(label: str, colour: str, at: list[str], values: list[float | None]) -> Figure:
    rounded = [None if value is None else round(value, 1) for value in values]
    return {"name": label, "colour": colour, "x": at, "y": rounded}


def _labels(lines: list[Line]) -> list[str]:
    return [label for label, _, _ in lines]


def _summary(lines: list[Line], values: list[list[float | None]], say: Callable[[float | None], str]) -> str:
    """The lines in words: the current value and the range of each."""
    parts: list[str] = []
    for (label, _, _), series in zip(lines, values, strict=True):
        known = [value for value in series if value is not None]
        if known:
            parts.append(f"{label}: {say(known[-1])} now, {say(min(known))} to {say(max(known))} within the hour")
    return "; ".join(parts) or "Nothing was measured yet."
