"""What all definitions share, each once: owner, retries, ranges, time-outs, and which errors are tried again."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import dagster as dg

from pipeline_platform.defs.hours import key_of, ranges
from pipeline_platform.errors import NotNowError, PipelineError, is_bad_data, is_transient, without_values
from pipeline_platform.settings import Settings

# One team, until a deployment has more.
OWNERS = ["team:platform"]

# Of assets whose data name people: what an erasure reaches.
PERSONAL_DATA = {"personal_data": "yes"}

# Set as metadata on jobs, schedules and sensors: their own parameter is beta and warns at every start.
OWNED: dict[str, Any] = {"owner": OWNERS[0]}

# For steps that may meet a restart of a server. PostgreSQL is back in 2 to 10 s; 3 tries take 14 s and their jitter.
RETRY = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# Any range is one run, which goes hour by hour. 72 hours: one run takes 8 s, a run for each hour 17 minutes.
ONE_RUN = dg.BackfillPolicy.single_run()


def _runs_over_hours(hours_a_run: int) -> dg.BackfillPolicy:
    return dg.BackfillPolicy.multi_run(hours_a_run) if hours_a_run else ONE_RUN


# Of short work on hours: where runs are spread over machines, a range is several runs.
HOURS_RUNS = _runs_over_hours(Settings.read().dagster_hours_a_run)

# Of short work on hours, and of replays, which may take hours and must not hold up the hourly runs.
HOURS_POOL, REPLAYS_POOL = "hours", "replays"

# Enough for a window of days with the replay lane at its cap of a tenth; a stalled replay fails long before.
LONG = {"dagster/max_runtime": str(24 * 3600)}

# Four days: more than a retention of three, and well below max_runtime_seconds of dagster.yaml even with much work.
HOURS_A_RUN_MAX = 96

# The tags that give a run its range of partitions.
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def range_tags(hours: Sequence[datetime]) -> dict[str, str]:
    """The tags of a run over ascending hours without a gap."""
    return {RANGE_START: key_of(hours[0]), RANGE_END: key_of(hours[-1])}


def requests_over(
    context: dg.ScheduleEvaluationContext, hours: Sequence[datetime], most: int | None = None
) -> list[dg.RunRequest]:
    """A run for each range without a gap of the ascending hours. most: at most so many ranges, the oldest."""
    return [
        dg.RunRequest(
            run_key=f"{context.scheduled_execution_time.isoformat()} {key_of(piece[0])}", tags=range_tags(piece)
        )
        for piece in list(ranges(hours, HOURS_A_RUN_MAX))[:most]
    ]


@contextmanager
def in_plain_words(where: str = "") -> Generator[None]:
    """Turn a refusal into the run's one-line error without a retry. Transient errors keep their retries."""
    try:
        yield
    except NotNowError:
        raise
    except PipelineError as error:
        raise dg.Failure(f"{where}{error}", allow_retries=False) from error


@contextmanager
def retried_where_it_helps(where: str) -> Generator[None]:
    """Pass transient errors to the retry policy; any other error ends the run with its reason."""
    try:
        yield
    except dg.Failure:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        # Dagster stores the cause with all data that it quotes.
        cause = None if is_bad_data(error) else error
        raise dg.Failure(f"{where}: {without_values(error)}", allow_retries=False) from cause
