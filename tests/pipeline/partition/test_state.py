"""A partition's segments: which of them are merged, and how old they are."""

from __future__ import annotations

import pytest

from pipeline.partition.batch import SourceRecord, SpanLimits, prepare
from pipeline.partition.segment import MERGE_FAN_IN
from pipeline.partition.state import Partition, PartitionLimits, merged, steady_ns
from pipeline.partition.window import Window

SECOND = 1_000_000_000
T0_S = 1_700_000_000


NO_BOUNDS = SpanLimits(
    partitions=1, attribute_columns_max=100, attribute_bytes_max=1000, attributes_max=100, future_s_max=60.0
)


def empty_partition(*, segments_max: int = 20, seal_age_s: float = 900.0) -> Partition:
    limits = PartitionLimits(
        seal_bytes=1 << 30, seal_spans=1 << 30, seal_age_s=seal_age_s, segments_max=segments_max, drop_grace_s=5.0
    )
    return Partition(partition=0, mark=0, window=Window(window_s=900.0, keys_max=1000), limits=limits)


def take_record(state: Partition, now_ns: int) -> None:
    """The next record: an empty one, so it is a segment without spans."""
    record = SourceRecord(state.next, "single-tenant", b"", T0_S * SECOND)
    [prepared] = prepare([state.wanted([record])], NO_BOUNDS, secret=bytes(16), now_unix_ns=T0_S * SECOND)
    assert prepared is not None
    state.apply(prepared, now_ns=now_ns, now_unix_ns=T0_S * SECOND)


def partition_of(segments: int, segments_max: int) -> Partition:
    """One with so many segments, each an offset long."""
    state = empty_partition(segments_max=segments_max)
    for _ in range(segments):
        take_record(state, 0)
    return state


def test_segments_are_sealed_at_their_age_and_stored_ones_go_after_their_grace_by_the_steady_clock() -> None:
    state = empty_partition(seal_age_s=60.0)
    take_record(state, 100 * SECOND)

    assert [state.seal_due(at * SECOND) for at in (100, 159, 160)] == [False, False, True]
    state.seal()
    state.stored(0, 170 * SECOND)
    assert [len(state.drop(at * SECOND)) for at in (174, 175)] == [0, 1]


def test_a_loss_is_sealed_at_once_so_that_the_store_says_whether_it_is_one() -> None:
    state = empty_partition()

    state.skip_lost(3, 100 * SECOND)

    assert state.seal_due(100 * SECOND)
    plan = state.seal()
    assert plan is not None
    assert (plan.first, plan.last) == (0, 2)
    assert state.losses == [(0, 2)]


@pytest.mark.parametrize(
    ("written_s", "age_s"),
    [
        (T0_S - 10, 10),
        (T0_S + 3600, 0),  # the wall clock was set back meanwhile, or its writer's is ahead
        (0, 0),  # nobody says when
    ],
)
def test_a_record_is_as_old_as_its_time_says_and_never_of_the_future(written_s: int, age_s: int) -> None:
    now_s = 500

    assert steady_ns(written_s * SECOND, now_s * SECOND, T0_S * SECOND) == (now_s - age_s) * SECOND


@pytest.mark.parametrize("segments_max", [2, 6, 7, 8, 20])
def test_one_segment_more_than_allowed_is_merged_with_its_neighbours(segments_max: int) -> None:
    state = partition_of(segments_max + 1, segments_max)

    olds = state.merge_due()

    assert len(olds) == min(MERGE_FAN_IN, segments_max + 1)
    assert state.replace(olds, merged(olds, [old.spans for old in olds], attribute_columns_max=10))
    assert state.merge_due() == []
