"""What System shows: partitions with their owners, and what is stored by day."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.query import overview
from pipeline.query.overview import DAY_NS
from pipeline.store.manifest import ChunkEntry

NOW_NS = 20_000 * DAY_NS + DAY_NS // 2


def entry(days_ago: float, tenant: str = "a", spans: int = 10) -> ChunkEntry:
    at = int(NOW_NS - days_ago * DAY_NS)
    return ChunkEntry(
        tenant=tenant,
        bucket="b",
        name="n",
        traces_name="t",
        filter_name="f",
        bytes=100 * spans,
        spans=spans,
        traces=1,
        start_min_unix_ns=at - 10,
        start_max_unix_ns=at,
        end_max_unix_ns=at,
    )


@dataclass
class Chunks:
    """A catalog of some entries, as strict about the range as the real one."""

    entries: list[ChunkEntry]

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        return [
            one
            for one in self.entries
            if one.tenant == tenant and one.start_min_unix_ns <= end_ns and one.end_max_unix_ns >= start_ns
        ]


def test_chunks_are_counted_by_the_day_of_their_newest_span_and_by_tenant() -> None:
    chunks = Chunks([entry(0.1), entry(0.4, spans=5), entry(1), entry(0, "b"), entry(40)])

    days = overview.stored(chunks, ["a"], NOW_NS)

    assert days == [
        {"day": "2024-10-04", "chunks": 2, "spans": 15, "bytes": 1500},
        {"day": "2024-10-03", "chunks": 1, "spans": 10, "bytes": 1000},
    ]
    assert overview.stored(chunks, ["a", "b"], NOW_NS)[0]["chunks"] == 3


def test_a_partition_says_who_owns_it_and_how_many_records_wait_for_a_chunk() -> None:
    told = {0: {"next": 95}}
    rows = overview.partitions({1: (50, 80), 0: (0, 100)}, {0: 90}, {0: "http://worker:1"}, told)

    assert rows == [
        {"partition": 0, "owner": "http://worker:1", "stored": 90, "end": 100, "waiting": 10, "told": {"next": 95}},
        {"partition": 1, "owner": "", "stored": 0, "end": 80, "waiting": 30, "told": None},
    ]
