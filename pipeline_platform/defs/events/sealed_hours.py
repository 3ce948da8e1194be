"""Requests runs for newly sealed hours: one query for each tick, and few runs even for many hours.

The cursor holds what was requested: each kept hour and how often it had been sealed then. So nothing depends on clocks
or on the order of commits, and an hour that an import reopened is requested again after it was sealed again. While the
sensor fails, hours are sealed and delivered all the same; its next tick catches up.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.db import queries
from pipeline_platform.defs.events.processing import process_hours_job
from pipeline_platform.defs.hours import HOUR, START, has_partition, hour_of, key_of, ranges
from pipeline_platform.defs.policies import HOURS_A_RUN_MAX, OWNED, range_tags
from pipeline_platform.defs.resources import Platform

_SQL = queries("control_plane")

# One run for each range without a gap, up to this number. Above it, one window over all of them costs less than their
# runs, because a finished hour takes only a moment.
_RANGES_MAX = 4


Seals = Mapping[datetime, int]


@dg.sensor(  # pyright: ignore[reportUnknownMemberType]
    job=process_hours_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    metadata=OWNED,
    description="Starts process_hours_job for hours sealed since the last tick, neighbours in one run. An "
    "hour that an import opened and that was sealed again is processed again.",
)
def sealed_hours(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
    asked = _read(context.cursor)
    with platform.connect() as conn:
        sealed: dict[datetime, int] = dict(conn.execute(_SQL["sealed_hours"]).fetchall())
    now = datetime.now(UTC)
    due = {hour: seals for hour, seals in sealed.items() if has_partition(hour, now)}
    new = [hour for hour, seals in due.items() if asked.get(hour, 0) != seals]
    early = [hour for hour in sealed if hour < START]
    if early and not new:
        why = f"{len(early)} hours before {key_of(START)} are not in Dagster: it shows them after the next start (up)"
        return dg.SensorResult(skip_reason=why, cursor=_write(due))
    if not new:
        newest = f"the newest is {key_of(max(sealed))}" if sealed else "none is sealed yet"
        return dg.SensorResult(skip_reason=f"no hour was sealed since the last tick; {newest}", cursor=_write(due))
    return dg.SensorResult(run_requests=[_request(piece, due) for piece in _pieces(new)], cursor=_write(due))


def _pieces(new: list[datetime]) -> list[list[datetime]]:
    pieces = list(ranges(new, HOURS_A_RUN_MAX))
    if len(pieces) <= _RANGES_MAX:
        return pieces
    count = (new[-1] - new[0]) // HOUR + 1
    return list(ranges((new[0] + HOUR * index for index in range(count)), HOURS_A_RUN_MAX))


def _request(hours: list[datetime], seals: Seals) -> dg.RunRequest:
    first, last = key_of(hours[0]), key_of(hours[-1])
    digest = hashlib.sha256(_write({hour: seals.get(hour, 0) for hour in hours}).encode()).hexdigest()[:12]
    return dg.RunRequest(
        run_key=f"{first}..{last}#{digest}",
        tags=range_tags(hours),
    )


def _read(cursor: str | None) -> dict[datetime, int]:
    pairs = (entry.split("=") for entry in (cursor or "").split())
    return {hour_of(key): int(seals) for key, seals in pairs}


def _write(seals: Seals) -> str:
    return " ".join(f"{key_of(hour)}={count}" for hour, count in sorted(seals.items()))
