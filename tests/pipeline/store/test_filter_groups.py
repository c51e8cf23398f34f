"""Filters of many chunks at once: the same answers as each filter alone gives, before and after groups are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import trace_filter
from pipeline.store.catalog import Catalog
from pipeline.store.filter_groups import GROUP_CHUNKS
from tests.pipeline.store.test_catalog import SECOND, TOPIC, Bucket, entry, manifest

CHUNKS = 3 * GROUP_CHUNKS
SIZES = (3, 30, 300, 3000)  # traces a chunk: four numbers of blocks, the largest in two pieces


class Filled:
    """A catalog of many chunks of one partition, and what each holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bucket = folder, Bucket()
        self.catalog = self.open()
        random = np.random.default_rng(7)
        self.traces = [random.integers(0, 256, (SIZES[n % 4], 16), dtype=np.uint8) for n in range(CHUNKS)]
        for number, traces in enumerate(self.traces):
            self.bucket.objects[f"filter-{number}"] = trace_filter.build(traces)
            self.catalog.apply(manifest(number * 10, number * 10 + 9, entry(number)))

    def open(self) -> Catalog:
        return Catalog(self.folder, TOPIC, self.bucket)  # type: ignore[arg-type]

    def found(self, trace_id: bytes, **times: int) -> set[int]:
        entries = self.catalog.chunks_for_trace("shop", 0, trace_id, **times)
        assert len({one.name for one in entries}) == len(entries)
        return {int(one.name.removeprefix("chunk-")) for one in entries}

    def expected(self, trace_id: bytes) -> set[int]:
        """What every filter alone says."""
        held = self.bucket.objects
        return {n for n in range(CHUNKS) if trace_filter.might_hold(held[f"filter-{n}"], trace_id)}


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    one = Filled(tmp_path)
    yield one
    one.catalog.close()


def sample(filled: Filled) -> list[bytes]:
    own = [traces[0].tobytes() for traces in filled.traces[::5]]
    return [*own, *(number.to_bytes(16, "big") for number in range(50))]


def load_all(catalog: Catalog) -> None:
    while catalog.load_filters(50):
        pass


def test_answers_are_those_of_each_filter_alone_also_after_opening_again(filled: Filled) -> None:
    load_all(filled.catalog)
    before = [filled.found(trace_id) for trace_id in sample(filled)]
    filled.catalog.close()
    filled.catalog = filled.open()
    after = [filled.found(trace_id) for trace_id in sample(filled)]

    assert before == after == [filled.expected(trace_id) for trace_id in sample(filled)]


def test_a_chunk_whose_filter_has_not_been_read_is_a_maybe(filled: Filled) -> None:
    filled.catalog.load_filters(100)

    for trace_id in sample(filled):
        unread = set(range(CHUNKS - 100))  # the newest are read first
        assert filled.found(trace_id) == filled.expected(trace_id) | unread


def test_times_leave_out_chunks_whether_their_filters_are_grouped_or_not(filled: Filled) -> None:
    times = {"start_ns": 70 * SECOND, "end_ns": 80 * SECOND}
    inside = set(range(70, 81))

    unread = filled.found(b"\1" * 16, **times)
    load_all(filled.catalog)

    assert unread == inside
    for trace_id in sample(filled):
        assert filled.found(trace_id, **times) == filled.expected(trace_id) & inside


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"STF\1\4" + bytes(64)])
def test_a_chunk_whose_filter_is_gone_or_damaged_stays_a_maybe_and_holds_up_no_other(
    filled: Filled, content: bytes | None
) -> None:
    if content is None:
        del filled.bucket.objects["filter-5"]
    else:
        filled.bucket.objects["filter-5"] = content

    load_all(filled.catalog)
    found = filled.found(b"\1" * 16)
    filled.catalog.close()
    filled.catalog = filled.open()

    assert 5 in found
    assert len(found) < 10
    assert filled.catalog.load_filters(10) == 0
