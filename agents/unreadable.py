"""Batches that the Kafka client cannot read, delivered with the reason instead of ending the consumer.

aiokafka raises at a record batch with a wrong checksum, damaged compression or a header's name that is no UTF-8. It
would do so again after each restart: one such batch would stop its partition for good. Here each offset of the batch
becomes a record that carries the reason, the first one with the batch's first bytes, and ends as a dead letter.
Batch layout: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import ConsumerRecord

REASON_HEADER = "unreadable"  # its value is a str: from Kafka come bytes, so nobody outside can set it
FETCHED_AGAIN_MAX = 3  # a checksum may be wrong on the way only
BATCHES_REMEMBERED_MAX = 1000
VALUE_BYTES_MAX = 1 << 20  # of the batch's bytes
RECORDS_MAX = 1 << 20  # a damaged count must not make billions of records; max.message.bytes allows fewer

_LENGTH_END = 12  # of the first two fields, offset and length: the length counts what follows
_HEAD = struct.Struct(">qiibihiqq")  # base offset, length, leader epoch, magic, checksum, attributes, last delta, times


def deliver_unreadable_batches() -> None:
    """From now on every aiokafka consumer of this process delivers them."""
    fetcher.MemoryRecords = _Batches
    fetcher.PartitionRecords = _Records


def reason_of(headers: Any) -> str:
    """Why a delivered record could not be read; empty where it could."""
    return next((value for name, value in headers or () if name == REASON_HEADER and isinstance(value, str)), "")


class _Batches:
    """aiokafka's MemoryRecords that remembers the bytes of the batch given out last."""

    _inner_type = fetcher.MemoryRecords

    def __init__(self, data: bytes) -> None:
        self._inner = self._inner_type(data)
        self._data, self._next = data, 0
        self.batch = b""

    def has_next(self) -> bool:
        return bool(self._inner.has_next())

    def size_in_bytes(self) -> int:
        return int(self._inner.size_in_bytes())

    def next_batch(self) -> Any:
        start = self._next
        length = struct.unpack_from(">i", self._data, start + 8)[0]
        self._next = start + _LENGTH_END + length
        self.batch = self._data[start : self._next]
        return self._inner.next_batch()


class _Records(fetcher.PartitionRecords):
    """aiokafka's PartitionRecords that goes on behind what it cannot read."""

    next_fetch_offset: int
    _fetched_again: ClassVar[Counter[tuple[Any, int]]] = Counter()

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        while True:
            try:
                yield from super()._unpack_records()
                return
            except Exception as error:
                if isinstance(error, CorruptRecordException) and self._is_fetched_again():
                    return
                yield from self._unread(error)

    def _is_fetched_again(self) -> bool:
        """The position stays before the batch, so that it is fetched again: FETCHED_AGAIN_MAX times."""
        again = self._fetched_again
        place = (self._tp, self.next_fetch_offset)
        if len(again) >= BATCHES_REMEMBERED_MAX:
            again.clear()
        again[place] += 1
        return again[place] <= FETCHED_AGAIN_MAX

    def _unread(self, error: Exception) -> Iterator[ConsumerRecord]:
        """One record for each offset of the batch at hand that was not delivered yet."""
        batch: bytes = self._records.batch
        base, _, _, magic, _, _, last_delta, first_ms, newest_ms = _HEAD.unpack_from(batch)
        if magic != 2 or not 0 <= last_delta < RECORDS_MAX:
            raise error
        reason = f"unreadable: {type(error).__name__}: {error}"
        end, value = base + last_delta + 1, batch[:VALUE_BYTES_MAX]
        for offset in range(max(base, self.next_fetch_offset), end):
            self.next_fetch_offset = offset + 1
            yield _record(self._tp, offset, max(first_ms, newest_ms, 0), value, reason)
            value, reason = b"", f"unreadable: in one batch with offset {base}"
        self.next_fetch_offset = max(end, self.next_fetch_offset)


def _record(tp: Any, offset: int, time_ms: int, value: bytes, reason: str) -> ConsumerRecord:
    headers = ((REASON_HEADER, reason),)
    return ConsumerRecord(tp.topic, tp.partition, offset, time_ms, 0, None, value, None, -1, len(value), headers)
