"""The throttle of the simulated old pipeline."""

from pipeline_platform.migration.simulation.capacity import TokenBucket


def test_more_than_a_burst_is_lent_once_and_paid_back() -> None:
    bucket = TokenBucket(per_s=4)
    assert bucket.take_all(100)
    assert not bucket.take_all(1)


def test_what_is_not_saved_up_is_not_given() -> None:
    bucket = TokenBucket(per_s=40)
    assert bucket.take_all(9)
    assert not bucket.take_all(5)
    assert bucket.take_all(1)
