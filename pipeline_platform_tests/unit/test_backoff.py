"""Waits grow up to their limit, also after more failures than a float has powers of two."""

import pytest

from pipeline_platform.backoff import jittered_s, step_s


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.1), (2, 0.2), (3, 0.4), (7, 5.0), (5_000, 5.0)])
def test_the_wait_doubles_up_to_its_limit(failures: int, seconds: float) -> None:
    assert step_s(failures, 0.1, 5.0) == pytest.approx(seconds)


@pytest.mark.parametrize("failures", [1, 3, 5_000])
def test_jitter_leaves_at_least_half_of_the_wait(failures: int) -> None:
    step = step_s(failures, 0.1, 5.0)
    waits = [jittered_s(failures, 0.1, 5.0) for _ in range(100)]
    assert all(step / 2 <= wait <= step for wait in waits)
    assert len(set(waits)) > 1
