"""The partitions: hours of `received_at`, in UTC. Tenants are no partitions.

A partition exists once its hour is over, which is when it can be sealed; the hour under way is shown by
`pipeline-platform funnel`, not here.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

# A month and more before the first release, so that every hour within anybody's retention has its partition. Moved
# forward, it would take the hours before it out of Dagster, with their history.
HOURS = dg.HourlyPartitionsDefinition(start_date="2026-10-01-00:00", timezone="UTC")

# The same with the hour under way: what is compared and recovered needs no sealed hour, only a settled window.
HOURS_SO_FAR = dg.HourlyPartitionsDefinition(start_date="2026-10-01-00:00", timezone="UTC", end_offset=1)

HOUR = timedelta(hours=1)


def hour_of(key: str) -> datetime:
    """The start of a partition. ValueError for what is no partition key."""
    return datetime.strptime(key, HOURS.fmt).replace(tzinfo=UTC)


def key_of(hour: datetime) -> str:
    """The partition that starts at `hour`."""
    return hour.astimezone(UTC).strftime(HOURS.fmt)


def has_partition(hour: datetime, now: datetime) -> bool:
    """Whether Dagster, whose clock says `now`, has this partition: the database's clock may be ahead."""
    return hour_of(HOURS.get_first_partition_key() or "") <= hour <= now - HOUR


def ranges(hours: Iterable[datetime], longest: int) -> Iterator[list[datetime]]:
    """Ascending hours as runs without a gap, of at most `longest` hours each."""
    piece: list[datetime] = []
    for hour in hours:
        if piece and (hour - piece[-1] != HOUR or len(piece) == longest):
            yield piece
            piece = []
        piece.append(hour)
    if piece:
        yield piece
