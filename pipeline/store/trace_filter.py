"""Which chunks may hold a trace: a blocked Bloom filter a chunk, made so that many are asked with one read.

A trace ID chooses one block of 64 bytes and six bits in it ("Cache-, Hash- and Space-Efficient Bloom Filters", Putze,
Sanders, Singler, 2007). The filters of chunks with the same number of blocks can be laid block beside block: a look-up
in 64 chunks then reads 4 kB in one piece.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from topics.errors import FormatVersionError

MAGIC = b"STF"
FORMAT = 1
HEADER_BYTES = 5  # magic, format, log2 of the number of blocks
BLOCK_BYTES = 64
BLOCK_BITS = 8 * BLOCK_BYTES
BITS_PER_TRACE = 12  # about 0.5 % of other traces pass
PROBES = 6
BLOCKS_LOG2_MAX = 24
AT_ONCE = 65_536  # trace IDs of a filter: their places take 100 bytes each

Bytes = npt.NDArray[np.uint8]
_UINT64_MAX = (1 << 64) - 1


def build(trace_ids: Bytes) -> bytes:
    """The filter of distinct trace IDs, shape (n, 16). 1.5 to 3 bytes a trace."""
    blocks_log2 = max(0, (max(1, len(trace_ids)) * BITS_PER_TRACE // BLOCK_BITS).bit_length())
    blocks_log2 = min(blocks_log2, BLOCKS_LOG2_MAX)
    wanted = np.zeros((1 << blocks_log2) * BLOCK_BITS, dtype=bool)
    for at in range(0, len(trace_ids), AT_ONCE):
        block, bits = _places(trace_ids[at : at + AT_ONCE], blocks_log2)
        wanted[(block[:, None] * BLOCK_BITS + bits).ravel()] = True
    return MAGIC + bytes([FORMAT, blocks_log2]) + np.packbits(wanted, bitorder="little").tobytes()


def blocks_log2_of(trace_filter: bytes) -> int:
    """Log2 of the filter's number of blocks. Raises FormatVersionError for what this version cannot read."""
    if len(trace_filter) < HEADER_BYTES or trace_filter[:3] != MAGIC or trace_filter[3] > FORMAT:
        raise FormatVersionError(f"no trace filter of format {FORMAT} or earlier: {trace_filter[:4]!r}")
    return trace_filter[4]


class Wanted(NamedTuple):
    """What one trace ID asks of any filter. mixed: its hash; bits: those that must be set in its block, as a number."""

    mixed: int
    bits: int

    def block(self, blocks_log2: int) -> int:
        """The number of its block in a filter of so many blocks."""
        return self.mixed >> (64 - blocks_log2)

    def is_in(self, block: bytes) -> bool:
        """Whether a block of 64 bytes has all its bits."""
        return int.from_bytes(block, "little") & self.bits == self.bits

    def as_bytes(self) -> Bytes:
        """The bits as a block, shape (64,)."""
        return np.frombuffer(self.bits.to_bytes(BLOCK_BYTES, "little"), dtype=np.uint8)


def wanted_of(trace_id: bytes) -> Wanted:
    """As _places, for one trace ID, in plain numbers: numpy would take ten times as long."""
    low, high = int.from_bytes(trace_id[:8], "little"), int.from_bytes(trace_id[8:], "little")
    mixed = _mix_one(low ^ _mix_one(high))
    again = _mix_one(mixed)
    bits = 0
    for probe in range(PROBES):
        bits |= 1 << (again >> 9 * probe & BLOCK_BITS - 1)
    return Wanted(mixed, bits)


def might_hold(trace_filter: bytes, trace_id: bytes) -> bool:
    """False: the chunk has no span of the trace. True: it has, or (about 0.5 %) has not."""
    wanted = wanted_of(trace_id)
    start = HEADER_BYTES + wanted.block(blocks_log2_of(trace_filter)) * BLOCK_BYTES
    return wanted.is_in(trace_filter[start : start + BLOCK_BYTES])


def _places(trace_ids: Bytes, blocks_log2: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each trace ID its block, and PROBES bit numbers within it. IDs need not be random: both halves are mixed."""
    halves = np.ascontiguousarray(trace_ids).view("<u8").reshape(-1, 2)
    mixed = _mix(halves[:, 0] ^ _mix(halves[:, 1]))
    block = (mixed >> np.uint64(64 - blocks_log2)).astype(np.int64) if blocks_log2 else np.zeros(len(mixed), np.int64)
    again = _mix(mixed)
    bits = [(again >> np.uint64(9 * probe)) & np.uint64(BLOCK_BITS - 1) for probe in range(PROBES)]
    return block, np.stack(bits, axis=1).astype(np.int64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of MurmurHash3: a bijection that spreads every bit."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _mix_one(value: int) -> int:
    """The same of one number."""
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _UINT64_MAX
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _UINT64_MAX
    return value ^ value >> 33
