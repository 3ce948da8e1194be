"""Numbers and times in options, limited by the database columns and the calendar."""

import math
from datetime import UTC, datetime
from typing import Any

import typer

from pipeline_platform.errors import ConfigError
from pipeline_platform.event.client_time import parse_time

INT4_MAX, INT8_MAX = 2**31 - 1, 2**63 - 1
_FIRST_YEAR, _LAST_YEAR = 1970, 2200


def number(low: float, high: float, text: str) -> Any:
    """An option for a finite number within bounds. Click's own range check accepts infinity and NaN."""
    return typer.Option(min=low, max=high, help=text, callback=_finite)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def time_of(text: str, wanted: str) -> datetime:
    """The given time, in UTC. ConfigError if it is not a valid time or too far from the present."""
    at = parse_time(text)
    if at is None or not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ConfigError(f"{text}: {wanted}")
    return at.astimezone(UTC)
