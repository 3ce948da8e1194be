"""Limits how much a tenant may send, with token buckets of one second per gateway process.

Above its own rate, a tenant's events wait in the overflow lane, so that they delay no other tenant. Above the common
maximum of events or of bytes, the tenant is told to come back later. A request is never split: missing tokens become
the bucket's debt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from pipeline_platform.event.types import Lane, TenantId


@dataclass(slots=True)
class Bucket:
    """Tokens that are refilled at `rate` per second, up to one second's worth."""

    rate: float
    tokens: float
    at: float

    def refill(self, rate: float, now: float) -> None:
        self.rate = rate
        self.tokens = min(rate, self.tokens + (now - self.at) * rate)
        self.at = now

    @property
    def wait_s(self) -> float:
        """Seconds until something may be taken again."""
        return max(0.0, -self.tokens / self.rate)


@dataclass(slots=True)
class Quota:
    """The buckets of all tenants that have sent anything. `clock` returns seconds."""

    default_rate: float
    rate_max: float
    bytes_rate_max: float
    clock: Callable[[], float] = monotonic
    _own: dict[TenantId, Bucket] = field(default_factory=dict[TenantId, Bucket])
    _most: dict[TenantId, Bucket] = field(default_factory=dict[TenantId, Bucket])
    _bytes: dict[TenantId, Bucket] = field(default_factory=dict[TenantId, Bucket])

    def take(self, tenant_id: TenantId, events: int, own_rate: float | None = None) -> tuple[Lane | None, float]:
        """The lane for these events and 0, or None and the seconds until the tenant may try again."""
        now = self.clock()
        most = _refilled(self._most, tenant_id, self.rate_max, now)
        if most.tokens <= 0:
            return None, most.wait_s
        most.tokens -= events
        own = _refilled(self._own, tenant_id, own_rate or self.default_rate, now)
        if own.tokens <= 0:
            return Lane.OVERFLOW, 0.0
        own.tokens -= events
        return Lane.LIVE, 0.0

    def bytes_wait_s(self, tenant_id: TenantId) -> float:
        """Seconds until the tenant may send a body again. 0: now."""
        return _refilled(self._bytes, tenant_id, self.bytes_rate_max, self.clock()).wait_s

    def spend_bytes(self, tenant_id: TenantId, size: int) -> None:
        """Charge a body that was read."""
        _refilled(self._bytes, tenant_id, self.bytes_rate_max, self.clock()).tokens -= size


def _refilled(buckets: dict[TenantId, Bucket], tenant_id: TenantId, rate: float, now: float) -> Bucket:
    bucket = buckets.get(tenant_id)
    if bucket is None:
        bucket = buckets[tenant_id] = Bucket(rate, rate, now)
    else:
        bucket.refill(rate, now)
    return bucket
