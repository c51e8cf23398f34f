"""A batch that aiokafka cannot read is delivered with its reason, offset by offset; what stands around it as it is."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import cramjam
import pytest
from aiokafka.consumer import fetcher
from aiokafka.record import default_records
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from agents.index_agent import source_record
from agents.unpacking import MODULES, XERIAL, bound_batches
from agents.unreadable import FETCHED_AGAIN_MAX, _Batches, _Records, reason_of
from tests.damaged_batches import DAMAGES, batch
from topics.errors import BatchTooLargeError

TP = TopicPartition("t", 3)
BOUND = 5 << 20
CODECS = {name: codec for name, (codec, _) in DAMAGES.items() if codec}


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        for name in ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"):
            monkeypatch.setattr(module, name, getattr(module, name))
    bound_batches(BOUND)


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


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_unpacks_to_more_than_the_bound_is_unreadable(codec: str, bounded: None) -> None:
    number = CODECS[codec]
    fits, bomb = batch(10, [bytes(BOUND - 1000), b"a"], number), batch(12, [b"b", bytes(BOUND)], number)

    found = list(delivered([(12, fits), (14, bomb), (15, batch(14, [b"c"], number))], 10))

    assert [record.offset for record in found] == [10, 11, 12, 13, 14]
    assert [len(record.value) for record in found] == [BOUND - 1000, 1, len(bomb), 0, 1]
    assert reason_of(found[2].headers).startswith("unreadable: BatchTooLargeError: the batch unpacks to more than")
    assert not reason_of(found[4].headers)


@pytest.mark.parametrize("codec", CODECS)
@given(parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=4), copies=st.integers(1, 60))
def test_batches_within_the_bound_are_what_they_were(codec: str, parts: list[bytes], copies: int) -> None:
    values = [part * copies for part in parts]

    assert [record.value for record in delivered([(len(values), batch(0, values, CODECS[codec]))])] == values


def test_gzip_of_several_members_and_snappy_in_one_block_are_unpacked(bounded: None) -> None:
    assert default_records.gzip_decode(gzip.compress(b"one ") + gzip.compress(b"two") + bytes(3)) == b"one two"
    assert default_records.snappy_decode(bytes(cramjam.snappy.compress_raw(b"plain"))) == b"plain"
    with pytest.raises(BatchTooLargeError):
        default_records.gzip_decode(gzip.compress(bytes(BOUND)) + gzip.compress(b"x"))
    with pytest.raises(ValueError, match="without a length"):
        default_records.snappy_decode(XERIAL + bytes(8) + struct.pack("!i", -4))


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
