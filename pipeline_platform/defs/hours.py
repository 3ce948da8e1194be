"""The partitions: hours of `received_at`, in UTC. Tenants are not partitions.

A partition exists from the end of its hour, when it can be sealed. `pipeline-platform funnel` shows the current hour.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

# More than a month before the first release, so that every hour within any retention has its partition. A later date
# would remove earlier hours and their history from Dagster.
HOURS = dg.HourlyPartitionsDefinition(start_date="2026-10-01-00:00", timezone="UTC")

# The same with the current hour: comparing and recovering need a settled window, not a sealed hour.
HOURS_SO_FAR = dg.HourlyPartitionsDefinition(start_date="2026-10-01-00:00", timezone="UTC", end_offset=1)

HOUR = timedelta(hours=1)


def hour_of(key: str) -> datetime:
    """The start of a partition. ValueError for an invalid partition key."""
    return datetime.strptime(key, HOURS.fmt).replace(tzinfo=UTC)


def key_of(hour: datetime) -> str:
    """The partition that starts at `hour`."""
    return hour.astimezone(UTC).strftime(HOURS.fmt)


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
