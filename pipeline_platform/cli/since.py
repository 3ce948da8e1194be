"""`--since`: a duration before now, or a time."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipeline_platform.cli.values import time_of
from pipeline_platform.errors import ConfigError

Since = Annotated[
    str | None, typer.Option(help="A time (ISO 8601, UTC where it has no zone) or how long ago: 30m, 2h, 3d.")
]
_AGO = re.compile(r"([0-9]+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since_of(text: str | None, option: str = "--since") -> datetime | None:
    """The time that the option means. Raises ConfigError."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is None:
        return time_of(text, option, "neither a time (2026-01-31T14:00) nor how long ago (30m, 2h, 3d)")
    try:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    except (OverflowError, ValueError):
        raise ConfigError(f"{option} {text}: longer ago than any time can be") from None
