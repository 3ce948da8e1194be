"""Figures are never rounded to what is not true, and rates are made of samples that belong together."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline_platform.account.numbers import Numbers
from pipeline_platform.watch.console.charts import charts_of
from pipeline_platform.watch.console.last_hour import LastHour, Sample
from pipeline_platform.watch.console.snapshot import Latency, beginning
from pipeline_platform.watch.console.wording import duration, milliseconds, rate, share

_NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 0, "–"), (5, 5, "100%"), (999_999, 1_000_000, "99.99%"), (1, 1_000_000, "0.00%"), (2, 3, "66.66%")],
)
def test_all_is_said_of_all_alone(part: int, whole: int, said: str) -> None:
    assert share(part, whole) == said


def test_times_and_rates_are_said_in_their_unit() -> None:
    assert [milliseconds(value) for value in (None, 4.26, 127.4, 2_500.0)] == ["–", "4.3 ms", "127 ms", "2.5 s"]
    assert [duration(value) for value in (-0.1, 61.0, 3_600.0, 90_000.0, 864_000.0)] == [
        "0.0 s", "61 s", "60 min", "25 h", "10 days",
    ]  # fmt: skip
    assert [rate(value) for value in (None, 0.0, 0.44, 1_234.5)] == ["–", "0", "0.4", "1,234"]


def test_the_hour_in_which_the_last_hour_began() -> None:
    assert beginning(_NOON + timedelta(minutes=20)) == _NOON - timedelta(hours=1)
    assert beginning(_NOON) == _NOON - timedelta(hours=1)


def sample(second: float, events: int, since: datetime = _NOON, **old: int) -> Sample:
    numbers = Numbers(received=events, accepted=events, delivered=events)
    return Sample(_NOON + timedelta(seconds=second), since, numbers, old, Latency(1.0, 2.0, 3.0), events)


def test_rates_are_of_the_last_seconds() -> None:
    history = LastHour()
    for second in range(21):
        history.add(sample(second, second * (100 if second <= 10 else 50), write=second * 7))
    assert history.rates["received"] != 0
    assert history.rates["legacy write"] == 7
    assert history.rates["claimed"] == 0
    assert [point.rates["received"] for point in history.points] == [100, 0]
    assert history.batches_lately == 1_000


def test_there_is_no_rate_across_two_windows_or_where_a_number_shrank() -> None:
    history = LastHour()
    history.add(sample(0, 500))
    history.add(sample(5, 100, since=_NOON + timedelta(hours=1)))
    assert history.rates == {}
    shrunk = LastHour()
    shrunk.add(sample(0, 500))
    shrunk.add(sample(5, 400))
    assert "received" not in shrunk.rates


def test_an_hour_is_kept_and_no_more() -> None:
    history = LastHour()
    for second in range(0, 5_400, 10):
        history.add(sample(second, second))
    assert len(history.points) == 361


def test_a_chart_is_said_in_words_too() -> None:
    history = LastHour()
    for second in range(0, 60, 10):
        history.add(sample(second, second * second))
    rates, latency = charts_of(history.points, with_legacy=False)
    assert rates.summary.startswith("accepted: 90 now, 10 to 90 within the hour; delivered: ")
    assert rates.rows[0] == ["12:00:50", "90", "90"]
    assert latency.columns == ["p99", "p95", "p50"]
    assert charts_of([], with_legacy=True)[0].summary == "Nothing was measured yet."
