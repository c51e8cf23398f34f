"""Trace-ID filters: every trace of the chunk passes, few others do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import trace_filter
from topics.errors import FormatVersionError

IDS = st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=200, unique=True)


def array_of(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 16)


@given(IDS)
def test_every_trace_of_the_chunk_passes(ids: list[bytes]) -> None:
    held = trace_filter.build(array_of(ids))

    assert all(trace_filter.might_hold(held, one) for one in ids)


@pytest.mark.parametrize("count", [1, 50, 1000, 20_000])
def test_few_other_traces_pass_and_a_trace_takes_few_bytes(count: int) -> None:
    random = np.random.default_rng(3)
    own, others = random.integers(0, 256, (count, 16), dtype=np.uint8), random.integers(0, 256, (4000, 16), np.uint8)

    held = trace_filter.build(own)

    assert all(trace_filter.might_hold(held, one.tobytes()) for one in own[:: max(1, count // 500)])
    assert sum(trace_filter.might_hold(held, one.tobytes()) for one in others) < 40
    assert len(held) <= 5 + max(64, 3.1 * count)


def test_ids_that_count_up_are_spread_as_random_ones_are() -> None:
    own = array_of([number.to_bytes(16, "big") for number in range(2000)])
    others = [number.to_bytes(16, "big") for number in range(10**6, 10**6 + 2000)]

    held = trace_filter.build(own)

    assert sum(trace_filter.might_hold(held, one) for one in others) < 40


@pytest.mark.parametrize("content", [b"", b"STF", b"xyz\1\0", b"STF\2\0" + bytes(64)])
def test_what_is_no_filter_or_of_a_later_format_is_refused(content: bytes) -> None:
    with pytest.raises(FormatVersionError):
        trace_filter.blocks_log2_of(content)


def mix(value: int) -> int:
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * multiplier) % 2**64
    return value ^ (value >> 33)


def documented_might_hold(held: bytes, trace_id: bytes) -> bool:
    """As docs/chunk-format.md describes the filter."""
    assert held[:4] == b"STF\1"
    blocks_log2 = held[4]
    first, second = (int.from_bytes(half, "little") for half in (trace_id[:8], trace_id[8:]))
    mixed = mix(first ^ mix(second))
    start = 5 + 64 * (mixed >> (64 - blocks_log2))
    bits = [(mix(mixed) >> (9 * probe)) % 512 for probe in range(6)]
    return all(held[start + bit // 8] >> (bit % 8) & 1 for bit in bits)


@given(IDS, IDS)
def test_a_reader_made_from_the_page_gives_the_same_answers(own: list[bytes], others: list[bytes]) -> None:
    held = trace_filter.build(array_of(own))

    for one in (*own, *others):
        assert documented_might_hold(held, one) == trace_filter.might_hold(held, one)
