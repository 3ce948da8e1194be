"""Numbers and times that options take, bounded by what the columns and the calendar hold."""

import math
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipeline_platform.errors import ConfigError
from pipeline_platform.event.client_time import parse_time

INT4_MAX, INT8_MAX = 2**31 - 1, 2**63 - 1
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
_NO_HOUR = "no hour: write it as 2026-01-31T14:00 (UTC)"

Hour = Annotated[str | None, typer.Option(help="One hour of received_at (2026-01-31T14:00).")]


def number(low: float, high: float, text: str) -> Any:
    """An option that takes a finite number within bounds: infinity and NaN pass click's own check of a range."""
    return typer.Option(min=low, max=high, help=text, callback=_finite)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def time_of(text: str, name: str, wanted: str) -> datetime:
    """The time that was written for `name`, in UTC. ConfigError for what is none, or outside of these centuries."""
    at = parse_time(text)
    if at is None or not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ConfigError(f"{name} {text}: {wanted}")
    return at.astimezone(UTC)


def hour_of(text: str | None) -> datetime | None:
    """The hour that an option names, in UTC. ConfigError for what is none."""
    if text is None:
        return None
    at = time_of(text, "the hour", _NO_HOUR)
    if at != at.replace(minute=0, second=0, microsecond=0):
        raise ConfigError(f"{text}: {_NO_HOUR}")
    return at
