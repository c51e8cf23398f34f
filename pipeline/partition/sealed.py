"""What a partition hands to its sink: one range of offsets, and the spans that stand in it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRange:
    """The offsets [first, last] of one partition, to be stored by one manifest.

    first: the partition's mark, even where that record no longer exists; last >= first.
    spans: the kept spans of all tenants as a span table (pipeline.spans.schema), in arrival order; may be empty.
    record_time_min_unix_ns, record_time_max_unix_ns: over the range's records; both 0 where it has none.
    losses: offset ranges [first, last] that Kafka deleted before they were read, named in the manifest.
    """

    topic: str
    partition: int
    partitions: int
    first: int
    last: int
    spans: pa.Table
    record_time_min_unix_ns: int
    record_time_max_unix_ns: int
    losses: tuple[tuple[int, int], ...] = ()
