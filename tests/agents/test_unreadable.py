"""A batch that aiokafka cannot read is delivered with its reason, offset by offset; what stands around it as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from agents.index_agent import source_record
from agents.unreadable import FETCHED_AGAIN_MAX, _Batches, _Records, reason_of
from tests.damaged_batches import DAMAGES, batch

TP = TopicPartition("t", 3)


def delivered(batches: Sequence[tuple[int, bytes]], start: int = 0) -> Iterator[Any]:
    """What a consumer at `start` gets of batches (end offset, bytes); a broker begins with that of the position."""
    fetched_in_vain = 0
    while data := b"".join(data for end, data in batches if end > start):
        before = start
        for record in _Records(TP, _Batches(data), None, start, None, None, True, fetcher.READ_UNCOMMITTED):
            start = record.offset + 1
            yield record
        fetched_in_vain = fetched_in_vain + 1 if start == before else 0
        assert fetched_in_vain <= FETCHED_AGAIN_MAX


@pytest.fixture(autouse=True)
def nothing_fetched_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Records, "_fetched_again", type(_Records._fetched_again)())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_batch_becomes_records_with_a_reason(damage: str) -> None:
    codec, damaged = DAMAGES[damage]
    bad = damaged(batch(12, [b"x" * 50, b"y" * 50, b"z" * 50], codec))
    batches = [(12, batch(10, [b"a", b"b"])), (15, bad), (16, batch(15, [b"c"], codec))]

    found = list(delivered(batches, 10))

    assert [record.offset for record in found] == [10, 11, 12, 13, 14, 15]
    assert [bool(reason_of(record.headers)) for record in found] == [False, False, True, True, True, False]
    assert [record.value for record in found] == [b"a", b"b", bad, b"", b"", b"c"]


@given(st.lists(st.tuples(st.sampled_from(["whole", *DAMAGES]), st.integers(1, 4)), max_size=6), st.integers(0, 8))
def test_every_offset_from_the_start_on_is_delivered_once(made: list[tuple[str, int]], start: int) -> None:
    _Records._fetched_again.clear()
    batches: list[tuple[int, bytes]] = []
    end = 0
    for damage, count in made:
        codec, damaged = DAMAGES.get(damage, (0, bytes))
        data = damaged(batch(end, [b"%d" % (end + at) * 40 for at in range(count)], codec))
        end += count
        batches.append((end, data))

    found = [record.offset for record in delivered(batches, start)]

    assert found == list(range(start, end))


def test_a_checksum_that_was_wrong_on_the_way_only_sets_nothing_aside() -> None:
    whole = batch(5, [b"a"])
    damaged = DAMAGES["wrong_checksum"][1](whole)

    first = list(_Records(TP, _Batches(damaged), None, 5, None, None, True, fetcher.READ_UNCOMMITTED))
    then = list(_Records(TP, _Batches(whole), None, 5, None, None, True, fetcher.READ_UNCOMMITTED))

    assert first == []
    assert [(record.offset, record.value, reason_of(record.headers)) for record in then] == [(5, b"a", "")]


def test_a_header_from_outside_is_no_reason() -> None:
    assert reason_of([("unreadable", b"says a stranger")]) == ""


def test_a_source_record_carries_the_reason_and_no_header() -> None:
    codec, damaged = DAMAGES["zstd"]
    found = next(delivered([(1, damaged(batch(0, [b"x" * 50], codec)))]))

    record = source_record(found)

    assert record.reason.startswith("unreadable: ")
    assert record.headers == ()
