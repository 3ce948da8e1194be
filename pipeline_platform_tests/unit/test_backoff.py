"""Waits between tries: they double up to a limit, after any number of failures."""

import pytest

from pipeline_platform import backoff


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(1, 0.5), (2, 1.0), (6, 16.0), (7, 30.0), (5_000, 30.0), (10**9, 30.0)]
)
def test_waits_double_up_to_the_limit(failures: int, wait_s: float) -> None:
    assert backoff.step_s(failures, 0.5, 30.0) == wait_s
    assert wait_s / 2 <= backoff.jittered_s(failures, 0.5, 30.0) <= wait_s
