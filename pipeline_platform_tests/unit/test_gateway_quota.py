"""Token buckets, with a clock of the test's own."""

from dataclasses import dataclass

from pipeline_platform.event.types import Lane, TenantId
from pipeline_platform.gateway.quota import Quota

ONE, OTHER = TenantId(1), TenantId(2)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_over_its_rate_a_tenant_overflows_and_others_do_not() -> None:
    quota = Quota(default_rate=100, rate_max=1_000, bytes_rate_max=1_000, clock=Clock())
    assert [quota.take(ONE, 50)[0] for _ in range(4)] == [Lane.LIVE, Lane.LIVE, Lane.OVERFLOW, Lane.OVERFLOW]
    assert quota.take(OTHER, 50) == (Lane.LIVE, 0.0)


def test_the_rate_comes_back_with_time() -> None:
    clock = Clock()
    quota = Quota(default_rate=100, rate_max=1_000, bytes_rate_max=1_000, clock=clock)
    live = 0
    for _ in range(1_000):
        clock.now += 0.05
        live += 10 * (quota.take(ONE, 10)[0] is Lane.LIVE)
    assert abs(live - 100 * clock.now) <= 110


def test_a_tenants_own_rate_counts() -> None:
    quota = Quota(default_rate=100, rate_max=10_000, bytes_rate_max=1_000, clock=Clock())
    assert [quota.take(ONE, 100, own_rate=300)[0] for _ in range(4)] == [Lane.LIVE] * 3 + [Lane.OVERFLOW]
    assert [quota.take(OTHER, 5, own_rate=1)[0] for _ in range(2)] == [Lane.LIVE, Lane.OVERFLOW]


def test_past_the_maximum_it_is_told_when_to_come_back() -> None:
    clock = Clock()
    quota = Quota(default_rate=100, rate_max=200, bytes_rate_max=1_000, clock=clock)
    assert quota.take(ONE, 1_200)[0] is Lane.LIVE
    assert quota.take(ONE, 1) == (None, 5.0)
    clock.now += 5.1
    assert quota.take(ONE, 1)[0] is not None


def test_a_request_larger_than_a_seconds_rate_still_passes() -> None:
    quota = Quota(default_rate=1, rate_max=1, bytes_rate_max=1_000, clock=Clock())
    assert quota.take(ONE, 2_500)[0] is Lane.LIVE


def test_bytes_are_counted_apart() -> None:
    clock = Clock()
    quota = Quota(default_rate=100, rate_max=200, bytes_rate_max=1_000, clock=clock)
    quota.spend_bytes(ONE, 6_000)
    assert (quota.bytes_wait_s(ONE), quota.bytes_wait_s(OTHER)) == (5.0, 0.0)
    assert quota.take(ONE, 1)[0] is Lane.LIVE
    clock.now += 5.1
    assert quota.bytes_wait_s(ONE) == 0
