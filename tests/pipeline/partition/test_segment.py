"""Segments: whether one may hold a trace, and its rows of one."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.partition.segment import Segment, rows_of_trace

TRACE_IDS = st.binary(min_size=16, max_size=16)


def segment_of(trace_ids: list[bytes]) -> Segment:
    spans = pa.table({"trace_id": pa.array(trace_ids, pa.binary(16))})
    return Segment(
        first=0,
        last=0,
        spans=spans,
        spans_count=len(trace_ids),
        nbytes=1,
        arrived_ns=1,
        oldest_ns=1,
        record_time_min_unix_ns=1,
        record_time_max_unix_ns=1,
    )


@settings(deadline=None)
@given(st.lists(TRACE_IDS, max_size=20), TRACE_IDS)
def test_a_segment_that_was_asked_once_knows_its_traces_without_its_rows(trace_ids: list[bytes], other: bytes) -> None:
    segment = segment_of(trace_ids)
    segment.may_hold(other)

    segment.spans = None

    assert all(map(segment.may_hold, trace_ids))
    assert segment.may_hold(other) == any(other[8:] == one[8:] for one in trace_ids)


@settings(deadline=None)
@given(st.lists(st.sampled_from([bytes(15) + b"1", bytes(15) + b"2", b"1" + bytes(15)]), max_size=9))
def test_the_rows_of_a_trace_are_those_with_its_whole_id(trace_ids: list[bytes]) -> None:
    spans = segment_of(trace_ids).spans
    assert spans is not None

    for wanted in {*trace_ids, bytes(16)}:
        assert rows_of_trace(spans, wanted).num_rows == trace_ids.count(wanted)
