"""Which bucket a partition writes to: evenly, and moving few when a bucket is added."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.buckets import bucket_of, bucket_of_partition
from topics.partitioner import partition_of

NAMES = st.lists(st.text("abcdef", min_size=3, max_size=6), min_size=1, max_size=6, unique=True)


@given(st.integers(1, 64), NAMES)
def test_no_bucket_gets_more_than_its_even_share_rounded_up(partitions: int, buckets: list[str]) -> None:
    taken = Counter(bucket_of_partition(one, partitions, buckets) for one in range(partitions))

    assert max(taken.values()) <= -(-partitions // len(buckets))


@given(st.integers(1, 64), NAMES)
def test_the_order_of_the_buckets_does_not_matter(partitions: int, buckets: list[str]) -> None:
    for one in range(partitions):
        assert bucket_of_partition(one, partitions, buckets) == bucket_of_partition(one, partitions, buckets[::-1])


def test_adding_a_bucket_moves_few_partitions() -> None:
    moved = []
    for deployment in range(20):
        buckets = [f"d{deployment}-{name}" for name in "abc"]
        before = [bucket_of_partition(one, 48, buckets) for one in range(48)]
        after = [bucket_of_partition(one, 48, [*buckets, f"d{deployment}-new"]) for one in range(48)]
        moved.append(sum(old != new for old, new in zip(before, after, strict=True)))

    assert sum(moved) / len(moved) < 48 * 0.4  # the new bucket's quarter must move; modulo would move three quarters


def test_a_trace_stands_in_the_bucket_of_its_partition() -> None:
    trace_id, buckets = bytes(range(16)), ("a", "b", "c")

    assert bucket_of(trace_id, 8, buckets) == bucket_of_partition(partition_of(trace_id, 8), 8, buckets)
