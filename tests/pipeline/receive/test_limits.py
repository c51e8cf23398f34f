"""Bytes under way and bytes a second."""

from __future__ import annotations

import pytest

from pipeline.receive.limits import InflightBytes, TenantRates
from topics.errors import OverloadedError, RateLimitedError


class Clock:
    """A clock that the test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_bytes_under_way_are_bounded_and_a_single_request_always_fits() -> None:
    inflight = InflightBytes(100)
    inflight.add(150)

    with pytest.raises(OverloadedError, match="150 bytes"):
        inflight.add(1)
    inflight.release(150)
    inflight.add(60)
    inflight.add(40)

    assert inflight.bytes == 100


def test_a_tenant_may_send_its_rate_and_no_more_and_others_are_not_concerned() -> None:
    clock = Clock()
    rates = TenantRates(lambda _tenant: (10.0, 100.0), clock)
    rates.take("a", 95)

    with pytest.raises(RateLimitedError, match=r"^RATE_LIMITED: .*tenant a") as refused:
        rates.take("a", 25)
    rates.take("b", 100)
    assert refused.value.retry_after_s == pytest.approx(2.0)
    clock.now_s += 2.0
    rates.take("a", 25)

    with pytest.raises(RateLimitedError):
        rates.take("a", 1)


def test_a_request_larger_than_the_burst_is_never_told_to_wait() -> None:
    rates = TenantRates(lambda _tenant: (10.0, 100.0), Clock())

    with pytest.raises(RateLimitedError, match="RATE_LIMITED: batch size") as refused:
        rates.take("a", 101)

    assert refused.value.retry_after_s is None


def test_without_a_rate_everything_passes() -> None:
    TenantRates(lambda _tenant: (0.0, 1.0), Clock()).take("a", 10**9)


def test_the_buckets_of_tenants_long_silent_are_forgotten() -> None:
    rates = TenantRates(lambda _tenant: (1.0, 10.0), Clock())
    rates.take("first", 10)
    for number in range(10_001):
        rates.take(f"t{number}", 1)

    rates.take("first", 10)
