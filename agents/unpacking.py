"""Kafka batches unpacked within a bound. Kafka bounds a batch as it is packed alone: 10 kB of zstd may hold 300 MB.

aiokafka unpacks a batch whole, by functions of its module of codecs; here they stop at the bound and raise, which makes
dead letters of the batch (agents/unreadable.py).
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import aiokafka.codec
import cramjam
import numpy as np
import numpy.typing as npt
from aiokafka.record import default_records

from topics.errors import BatchTooLargeError

try:
    from aiokafka.record._crecords import default_records as compiled_records
except ImportError:  # aiokafka without its compiled parts
    compiled_records = default_records

GZIP = 16 + zlib.MAX_WBITS
XERIAL = b"\x82SNAPPY\0"  # snappy in blocks, as Java and librdkafka write it
XERIAL_HEAD_BYTES = 16
KEPT_ROOM_BYTES = 4 << 20
MODULES: tuple[ModuleType, ...] = (default_records, compiled_records)


def bound_batches(bytes_max: int) -> None:
    """From now on every aiokafka consumer of this process unpacks a batch to no more than that.

    Beyond it a batch raises BatchTooLargeError.
    """
    for module in MODULES:
        module.gzip_decode = partial(_gzip, bytes_max)  # type: ignore[attr-defined]
        module.snappy_decode = partial(_snappy, bytes_max)  # type: ignore[attr-defined]
        module.lz4_decode = partial(_into, cramjam.lz4.decompress_into, bytes_max)  # type: ignore[attr-defined]
        module.zstd_decode = partial(_into, cramjam.zstd.decompress_into, bytes_max)  # type: ignore[attr-defined]


def _gzip(bytes_max: int, payload: Any) -> bytes:
    found, rest = bytearray(), bytes(payload)
    while rest:
        member = zlib.decompressobj(GZIP)
        found += member.decompress(rest, bytes_max + 1 - len(found))
        if len(found) > bytes_max:
            raise _too_large(bytes_max)
        if not member.eof:
            raise EOFError("gzip ends early")
        rest = member.unused_data.lstrip(b"\0")
    return bytes(found)


def _snappy(bytes_max: int, payload: Any) -> bytes:
    """Each block says first how large it is."""
    if sum(map(cramjam.snappy.decompress_raw_len, _blocks(bytes(payload)))) > bytes_max:
        raise _too_large(bytes_max)
    return aiokafka.codec.snappy_decode(payload)


def _blocks(payload: bytes) -> Iterator[bytes]:
    if not payload.startswith(XERIAL):
        yield payload
        return
    at = XERIAL_HEAD_BYTES
    while at < len(payload):
        (size,) = struct.unpack_from("!i", payload, at)
        if size <= 0:
            raise ValueError("snappy has a block without a length")
        yield payload[at + 4 : at + 4 + size]
        at += 4 + size


def _into(decompress_into: Callable[[Any, Any], int], bytes_max: int, payload: Any) -> bytes:
    for room in _rooms(bytes_max):
        try:
            size = decompress_into(payload, room)
        except cramjam.DecompressionError as exc:
            if "whole buffer" not in str(exc):
                raise
        else:
            return room[:size].tobytes()
    raise _too_large(bytes_max)


def _rooms(bytes_max: int) -> Iterator[npt.NDArray[np.uint8]]:
    """What does for most, then what is allowed: that is address space, memory is taken as it is filled."""
    yield _kept.room[:bytes_max]
    if bytes_max > KEPT_ROOM_BYTES:
        yield np.empty(bytes_max, dtype=np.uint8)


class _Kept(threading.local):
    """Room for most batches that is used again: fresh pages would cost as much as unpacking into them."""

    def __init__(self) -> None:
        self.room = np.empty(KEPT_ROOM_BYTES, dtype=np.uint8)


_kept = _Kept()


def _too_large(bytes_max: int) -> BatchTooLargeError:
    return BatchTooLargeError(f"the batch unpacks to more than {bytes_max} bytes (worker.batch_bytes_max)")
