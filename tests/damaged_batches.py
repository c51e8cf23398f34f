"""Record batches of Kafka, and three ways to make them unreadable, in memory and on a broker's disk."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer

from topics import spans_by_trace
from topics.settings import KafkaSettings
from topics.topic import full_name

CHECKSUM, CHECKED = 17, 21  # where a batch's checksum stands, and where what it covers begins
HEADER = "name-of-a-header"


def batch(base: int, values: list[bytes], compression: int = 0) -> bytes:
    """A batch as a producer sends it and a broker keeps it; its first record has the offset `base`."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 24)
    for at, value in enumerate(values):
        builder.append(at, 1_700_000_000_000, None, value, [(HEADER, b"1")])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base)
    return bytes(built)


def wrong_checksum(data: bytes) -> bytes:
    """One bit of the last byte is another."""
    return data[:-1] + bytes([data[-1] ^ 1])


def damaged_compression(data: bytes) -> bytes:
    """What is compressed is overwritten; the checksum is that of the new bytes."""
    return _checksummed(data[:-20] + b"\xaa" * 20)


def header_name_of_wrong_utf8(data: bytes) -> bytes:
    """The same for the header's name; the batch must not be compressed."""
    return _checksummed(data.replace(HEADER.encode(), b"\xff" * len(HEADER), 1))


def _checksummed(data: bytes) -> bytes:
    return data[:CHECKSUM] + struct.pack(">I", calc_crc32c(data[CHECKED:])) + data[CHECKED:]


DAMAGES: dict[str, tuple[int, Callable[[bytes], bytes]]] = {  # the codec it needs, what it does
    "wrong_checksum": (0, wrong_checksum),
    "gzip": (DefaultRecordBatch.CODEC_GZIP, damaged_compression),
    "snappy": (DefaultRecordBatch.CODEC_SNAPPY, damaged_compression),
    "lz4": (DefaultRecordBatch.CODEC_LZ4, damaged_compression),
    "zstd": (DefaultRecordBatch.CODEC_ZSTD, damaged_compression),
    "header_name": (0, header_name_of_wrong_utf8),
}


def write_damaged(kafka: KafkaSettings, logs: Path, partition: int, damage: str, value: bytes) -> int:
    """Write a batch of one record to the keyed topic and damage it on the broker's disk; returns its offset.

    logs: the broker's folder of logs; it answers fetches with what the file holds now. Damaged compression has the
    checksum of before: a broker looks into what it is sent, so that such a batch can come from a disk only.
    """
    codec, damaged = DAMAGES[damage]
    if codec:
        damaged = wrong_checksum
    topic, told = full_name(spans_by_trace.TOPIC, kafka), list[int]()
    segment = logs / f"{topic}-{partition}" / f"{0:020}.log"
    before = segment.stat().st_size if segment.exists() else 0
    compression = damage if codec else "none"
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "compression.type": compression})
    producer.produce(
        topic,
        value,
        partition=partition,
        headers=[(HEADER, b"1")],
        on_delivery=lambda _error, message: told.append(message.offset()),
    )
    producer.flush()
    with segment.open("r+b") as file:
        file.seek(before)
        data = damaged(file.read())
        file.seek(before)
        file.write(data)
    return told[0]
