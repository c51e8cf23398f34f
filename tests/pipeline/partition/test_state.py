"""A partition's segments: which of them are merged."""

from __future__ import annotations

import pytest

from pipeline.partition.segment import MERGE_FAN_IN
from pipeline.partition.state import Partition, PartitionLimits, merged
from pipeline.partition.window import Window


def partition_of(segments: int, segments_max: int) -> Partition:
    """One with so many segments, each an offset long."""
    limits = PartitionLimits(
        seal_bytes=1 << 30, seal_spans=1 << 30, seal_age_s=900.0, segments_max=segments_max, drop_grace_s=0.0
    )
    state = Partition(partition=0, mark=0, window=Window(window_s=900.0, keys_max=1000), limits=limits)
    for _ in range(segments):
        state.skip_lost(state.next + 1, 0)
    return state


@pytest.mark.parametrize("segments_max", [2, 6, 7, 8, 20])
def test_one_segment_more_than_allowed_is_merged_with_its_neighbours(segments_max: int) -> None:
    state = partition_of(segments_max + 1, segments_max)

    olds = state.merge_due()

    assert len(olds) == min(MERGE_FAN_IN, segments_max + 1)
    assert state.replace(olds, merged(olds, [old.spans for old in olds], attribute_columns_max=10))
    assert state.merge_due() == []
