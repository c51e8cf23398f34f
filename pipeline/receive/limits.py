"""What a receiver takes at a time: bytes under way, and bytes a second of each tenant."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from topics.errors import OverloadedError, RateLimitedError

TENANTS_REMEMBERED = 10_000


class InflightBytes:
    """Bounds the bytes of requests that are not yet acknowledged."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.bytes = 0

    def add(self, count: int) -> None:
        """Take `count` bytes. Raises OverloadedError, and takes none, where that would exceed the bound.

        A single request is let in whatever its size, since it was bounded before: else it could never be taken.
        """
        if self.bytes and self.bytes + count > self._bytes_max:
            raise OverloadedError(f"{self.bytes} bytes are waiting for Kafka, at most {self._bytes_max} may")
        self.bytes += count

    def release(self, count: int) -> None:
        """Give `count` bytes back."""
        self.bytes -= count

    def share(self) -> InflightShare:
        """What one request takes of the bound."""
        return InflightShare(self)


class InflightShare:
    """The bytes that one request has taken, given back together."""

    __slots__ = ("_all", "bytes")

    def __init__(self, inflight: InflightBytes) -> None:
        self._all = inflight
        self.bytes = 0

    def add(self, count: int) -> None:
        """Take `count` bytes. Raises OverloadedError, and takes none, where that would exceed the bound."""
        self._all.add(count)
        self.bytes += count

    def release(self) -> None:
        """Give back all."""
        self._all.release(self.bytes)
        self.bytes = 0


class TenantRates:
    """A token bucket a tenant: `rate` bytes a second, `burst` bytes at once. A rate of 0 lets everything pass."""

    def __init__(self, limits: Callable[[str], tuple[float, float]], clock_s: Callable[[], float]) -> None:
        """limits: (rate, burst) of a tenant, now."""
        self._limits, self._clock_s = limits, clock_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tenant -> (tokens, at what time)

    def take(self, tenant: str, count: int) -> None:
        """Take `count` tokens of the tenant. Raises RateLimitedError, and takes none, where it has fewer.

        Buckets of the tenants that were silent longest are forgotten above 10,000: full again, in the sender's favour.
        """
        rate, burst = self._limits(tenant)
        if rate <= 0:
            return
        if count > burst:
            raise RateLimitedError(
                f"RATE_LIMITED: batch size {count} bytes exceeds the burst size of {burst:.0f} bytes, tenant {tenant}",
                retry_after_s=None,
            )
        now_s = self._clock_s()
        tokens, at_s = self._buckets.pop(tenant, (burst, now_s))
        tokens = min(burst, tokens + (now_s - at_s) * rate)
        allowed = tokens >= count
        self._buckets[tenant] = (tokens - count if allowed else tokens, now_s)
        if len(self._buckets) > TENANTS_REMEMBERED:
            self._buckets.popitem(last=False)
        if not allowed:
            raise RateLimitedError(
                f"RATE_LIMITED: ingestion rate limit ({rate:.0f} bytes/s, burst {burst:.0f} bytes) "
                f"exceeded while adding {count} bytes for tenant {tenant}",
                retry_after_s=(count - tokens) / rate,
            )
