"""The partitions: hours of `received_at`, in UTC. Tenants are not partitions.

A partition exists from the end of its hour, when it can be sealed. `pipeline-platform funnel` shows the current hour.
The first is the hour in `home/first_hour`. Hours that are imported before it are shown after the next
start of the platform.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from pipeline_platform.defs.private_dagster import same_partition_if_any
from pipeline_platform.errors import ConfigError
from pipeline_platform.local.services.first_hour import read_first_hour
from pipeline_platform.settings import Settings

# The hour that `up` noted, so that "missing" are hours in which events may be. Where nothing was started, long ago.
START = read_first_hour(Settings.read().home) or datetime(2026, 10, 1, tzinfo=UTC)

HOURS = dg.HourlyPartitionsDefinition(start_date=START, timezone="UTC")

# The same with the current hour: comparing and replaying need a settled window, not a sealed hour.
HOURS_SO_FAR = dg.HourlyPartitionsDefinition(start_date=START, timezone="UTC", end_offset=1)

# Of HOURS_SO_FAR on HOURS: without it, a range with the current hour could not be launched.
SAME_HOUR = same_partition_if_any()

HOUR = timedelta(hours=1)


def hour_of(key: str) -> datetime:
    """The start of a partition. ValueError for an invalid partition key."""
    return datetime.strptime(key, HOURS.fmt).replace(tzinfo=UTC)


def key_of(hour: datetime) -> str:
    """The partition that starts at `hour`."""
    return hour.astimezone(UTC).strftime(HOURS.fmt)


def keys_of(text: str) -> list[str]:
    """The partitions that a text names: one hour, or [FIRST...LAST] as Dagster's dialogs write it.

    ConfigError for any other text.
    """
    first, _, last = text.strip().removeprefix("[").removesuffix("]").partition("...")
    try:
        start, end = hour_of(first), hour_of(last or first)
    except ValueError:
        raise ConfigError(
            f"{text!r} names no hours: write one as 2026-11-27-14:00, or a range as "
            "[2026-11-27-14:00...2026-11-27-16:00]"
        ) from None
    if end < start:
        raise ConfigError(f"the range {text} ends before it begins")
    return [key_of(start + HOUR * place) for place in range((end - start) // HOUR + 1)]


def has_partition(hour: datetime, now: datetime) -> bool:
    """Whether Dagster has this partition at its time `now`. The database's clock may be ahead of it."""
    return hour_of(HOURS.get_first_partition_key() or "") <= hour <= now - HOUR


def ranges(hours: Iterable[datetime], longest: int) -> Iterator[list[datetime]]:
    """Split ascending hours into runs without a gap, of at most `longest` hours each."""
    piece: list[datetime] = []
    for hour in hours:
        if piece and (hour - piece[-1] != HOUR or len(piece) == longest):
            yield piece
            piece = []
        piece.append(hour)
    if piece:
        yield piece
