"""Rows of one trace from several places, to one trace."""

from __future__ import annotations

import pyarrow.compute as pc

from pipeline.query.chunks import ChunkRef
from pipeline.query.snapshot import Snapshot
from pipeline.query.trace_by_id import canonical, joined
from pipeline.store.chunk import read_chunk
from pipeline.store.manifest import ChunkEntry
from tests.pipeline.store.shop import encoded, shop, spans_table

TRACE_ID = bytes([1]) * 16


def chunk_at(first: int) -> ChunkRef:
    entry = ChunkEntry(
        tenant="t",
        bucket="spans-a",
        name=f"chunk-{first}",
        traces_name="",
        filter_name="",
        bytes=1,
        spans=2,
        traces=1,
        start_min_unix_ns=1,
        start_max_unix_ns=1,
        end_max_unix_ns=1,
        outliers=(),
        services={},
        attributes={},
    )
    return ChunkRef(entry=entry, partition=0, first=first, last=first)


def test_late_copies_are_left_out_and_counted() -> None:
    rows = canonical(read_chunk(encoded(spans_table(shop())).parquet))
    rows = rows.filter(pc.equal(rows.column("trace_id"), TRACE_ID))

    once = joined(TRACE_ID, 0, [(chunk_at(0), rows)], Snapshot(), ["t"], [])
    twice = joined(TRACE_ID, 0, [(chunk_at(9), rows), (chunk_at(0), rows)], Snapshot(), ["t"], [])

    assert (once.spans.num_rows, once.copies) == (2, 0)
    assert (twice.spans.num_rows, twice.copies) == (2, 2)
    assert twice.spans.drop_columns("record_offset").equals(once.spans.drop_columns("record_offset"))
