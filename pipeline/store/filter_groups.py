"""The trace-ID filters of many chunks, laid so that 64 of them are asked with one read.

The filters of 64 chunks of one tenant and partition with equally many blocks make a group: for each block number the
blocks of all 64 stand in one value. Until a group is full its chunks' filters are asked one by one, 4 kB of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson
import structlog
from rocksdict import WriteBatch

from pipeline.store import trace_filter
from topics.errors import FormatVersionError

log = structlog.get_logger(__name__)
GROUP_CHUNKS = 64
PIECE_BLOCKS = 64
UNREADABLE = b""  # the object is gone or damaged: the chunk counts as a maybe for ever
FAMILIES = ("filters", "pieces", "groups", "members")


class ChunkKey(NamedTuple):
    """A chunk: its manifest's partition and first offset, and its number there."""

    partition: int
    first: int
    number: int

    def packed(self) -> bytes:
        """The key of what is stored of it."""
        return self.partition.to_bytes(4, "big") + self.first.to_bytes(8, "big") + self.number.to_bytes(4, "big")

    @classmethod
    def unpacked(cls, key: bytes) -> ChunkKey:
        """The chunk of a packed key."""
        return cls(*(int.from_bytes(key[start:end], "big") for start, end in ((0, 4), (4, 12), (12, 16))))


class Chunk(NamedTuple):
    """Whose a chunk is, and the range of its times; of a chunk with outliers all times."""

    tenant: str
    low_ns: int
    high_ns: int

    def overlaps(self, low_ns: int, high_ns: int) -> bool:
        """Whether it has something in the range."""
        return self.low_ns <= high_ns and self.high_ns >= low_ns


class _Group:
    """Chunks whose filters stand block beside block, and the range of times of those that are known."""

    def __init__(self, number: int, blocks_log2: int, members: list[ChunkKey]) -> None:
        self.number, self.blocks_log2, self.members = number, blocks_log2, members
        self.low_ns, self.high_ns = 1 << 64, -1

    def widen(self, chunk: Chunk) -> None:
        self.low_ns, self.high_ns = min(self.low_ns, chunk.low_ns), max(self.high_ns, chunk.high_ns)


class _Shelf:
    """The filters of one tenant and partition. single: blocks_log2 -> chunks whose filters stand alone.

    unknown: chunks whose filter has not been read, or cannot be.
    """

    def __init__(self) -> None:
        self.groups: list[_Group] = []
        self.single: dict[int, list[ChunkKey]] = defaultdict(list)
        self.unknown: dict[ChunkKey, None] = {}


class FilterGroups:
    """The filters in the catalog's database. Not thread-safe: the catalog holds its lock."""

    def __init__(self, db: Any, families: Mapping[str, Any], handles: Mapping[str, Any]) -> None:
        self._db, self._families, self._handles = db, families, handles
        self.forget()

    def forget(self) -> None:
        """Know nothing: what is stored is not read again, or was deleted."""
        self._shelves: dict[tuple[str, int], _Shelf] = defaultdict(_Shelf)
        self._group_of: dict[ChunkKey, _Group] = {}
        self._held: dict[ChunkKey, int] = {}
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._wanted: dict[ChunkKey, None] = {}
        self._next_group = 0

    def open(self) -> None:
        """Read which groups there are and which filters stand alone: not the filters themselves."""
        for key, value in self._families["members"].items():
            tenant, partition, blocks_log2, members = orjson.loads(value)
            group = _Group(int.from_bytes(key, "big"), blocks_log2, [ChunkKey(*member) for member in members])
            self._shelves[tenant, partition].groups.append(group)
            self._group_of.update(dict.fromkeys(group.members, group))
            self._next_group = max(self._next_group, group.number + 1)
        for key, value in self._families["filters"].items():
            self._held[ChunkKey.unpacked(key)] = value[0] if value != UNREADABLE else -1

    def expect(self, key: ChunkKey, chunk: Chunk) -> None:
        """A chunk is there: put it on its shelf, and note whether its filter must be read."""
        self._chunks[key] = chunk
        shelf = self._shelves[chunk.tenant, key.partition]
        if (group := self._group_of.get(key)) is not None:
            group.widen(chunk)
            return
        blocks_log2 = self._held.pop(key, None)
        if blocks_log2 is not None and blocks_log2 >= 0:
            shelf.single[blocks_log2].append(key)
            return
        shelf.unknown[key] = None
        if blocks_log2 is None:
            self._wanted[key] = None

    def drop(self, key: ChunkKey) -> None:
        """A chunk is there no longer. In a group its bits stay, and hit nothing."""
        chunk = self._chunks.pop(key, None)
        self._wanted.pop(key, None)
        if chunk is None or key in self._group_of:
            return
        shelf = self._shelves[chunk.tenant, key.partition]
        shelf.unknown.pop(key, None)
        batch = WriteBatch(raw_mode=True)
        batch.delete(key.packed(), self._handles["filters"])
        for blocks_log2, keys in shelf.single.items():
            if key in keys:
                keys.remove(key)
                for number in range(_pieces(blocks_log2)):
                    batch.delete(_piece_key(key, number), self._handles["pieces"])
        self._db.write(batch)

    def missing(self, chunks_max: int) -> list[ChunkKey]:
        """Chunks whose filters must be read, newest first."""
        return [key for key, _ in zip(reversed(self._wanted), range(chunks_max), strict=False)]

    def put(self, key: ChunkKey, content: bytes | None) -> None:
        """Take a chunk's filter; None when its object is gone. One that cannot be read is as good as gone."""
        if key not in self._wanted:
            return
        del self._wanted[key]
        chunk = self._chunks[key]
        blocks_log2 = _readable(content, key)
        if content is None or blocks_log2 is None:
            self._families["filters"][key.packed()] = UNREADABLE
            return
        batch = WriteBatch(raw_mode=True)
        batch.put(key.packed(), bytes([blocks_log2]), self._handles["filters"])
        size = PIECE_BLOCKS * trace_filter.BLOCK_BYTES
        for number, start in enumerate(range(trace_filter.HEADER_BYTES, len(content), size)):
            batch.put(_piece_key(key, number), content[start : start + size], self._handles["pieces"])
        self._db.write(batch)
        shelf = self._shelves[chunk.tenant, key.partition]
        del shelf.unknown[key]
        single = shelf.single[blocks_log2]
        single.append(key)
        if len(single) == GROUP_CHUNKS:
            self._make_group(chunk.tenant, key.partition, shelf, blocks_log2)

    def might_hold(
        self, tenant: str, partition: int, trace_id: bytes, low_ns: int = 0, high_ns: int = (1 << 64) - 1
    ) -> list[ChunkKey]:
        """The tenant's chunks of the partition with something in the range of times that may hold the trace."""
        shelf = self._shelves.get((tenant, partition))
        if shelf is None:
            return []
        wanted = trace_filter.wanted_of(trace_id)
        found = list(shelf.unknown)
        for group in shelf.groups:
            if group.low_ns <= high_ns and group.high_ns >= low_ns:
                found += self._hits_of_group(group, wanted)
        for blocks_log2, keys in shelf.single.items():
            inside = [key for key in keys if self._chunks[key].overlaps(low_ns, high_ns)]
            piece, at = divmod(wanted.block(blocks_log2), PIECE_BLOCKS)
            found += [key for key in inside if self._hit(key, wanted, piece, at)]
        return [key for key in found if key in self._chunks and self._chunks[key].overlaps(low_ns, high_ns)]

    def _hits_of_group(self, group: _Group, wanted: trace_filter.Wanted) -> list[ChunkKey]:
        value = self._families["groups"].get(_block_key(group.number, wanted.block(group.blocks_log2)))
        blocks, bits = np.frombuffer(value, dtype=np.uint8).reshape(-1, trace_filter.BLOCK_BYTES), wanted.as_bytes()
        return [group.members[at] for at in np.flatnonzero(((blocks & bits) == bits).all(axis=1)).tolist()]

    def _hit(self, key: ChunkKey, wanted: trace_filter.Wanted, piece: int, at: int) -> bool:
        value = self._families["pieces"].get(_piece_key(key, piece))
        return wanted.is_in(value[at * trace_filter.BLOCK_BYTES : (at + 1) * trace_filter.BLOCK_BYTES])

    def _make_group(self, tenant: str, partition: int, shelf: _Shelf, blocks_log2: int) -> None:
        members = shelf.single.pop(blocks_log2)
        blocks = np.stack([self._blocks(key, blocks_log2) for key in members], axis=1)
        group = _Group(self._next_group, blocks_log2, members)
        self._next_group += 1
        batch = WriteBatch(raw_mode=True)
        for number in range(len(blocks)):
            batch.put(_block_key(group.number, number), blocks[number].tobytes(), self._handles["groups"])
        row = orjson.dumps([tenant, partition, blocks_log2, [list(member) for member in members]])
        batch.put(group.number.to_bytes(4, "big"), row, self._handles["members"])
        for key in members:
            batch.delete(key.packed(), self._handles["filters"])
            for number in range(_pieces(blocks_log2)):
                batch.delete(_piece_key(key, number), self._handles["pieces"])
        self._db.write(batch)
        shelf.groups.append(group)
        self._group_of.update(dict.fromkeys(members, group))
        for key in members:
            group.widen(self._chunks[key])

    def _blocks(self, key: ChunkKey, blocks_log2: int) -> trace_filter.Bytes:
        """A filter's blocks, shape (blocks, 64)."""
        pieces = [self._families["pieces"].get(_piece_key(key, number)) for number in range(_pieces(blocks_log2))]
        return np.frombuffer(b"".join(pieces), dtype=np.uint8).reshape(-1, trace_filter.BLOCK_BYTES)


def _readable(content: bytes | None, key: ChunkKey) -> int | None:
    """Log2 of a filter's blocks; None, with a warning, where it is none that this version reads."""
    try:
        blocks_log2 = trace_filter.blocks_log2_of(content or b"")
        if len(content or b"") == trace_filter.HEADER_BYTES + (trace_filter.BLOCK_BYTES << blocks_log2):
            return blocks_log2
        reason = "its length is wrong"
    except FormatVersionError as error:
        reason = str(error)
    log.warning("filter_unreadable", partition=key.partition, first=key.first, reason=reason)
    return None


def _pieces(blocks_log2: int) -> int:
    return -(-(1 << blocks_log2) // PIECE_BLOCKS)


def _piece_key(key: ChunkKey, number: int) -> bytes:
    return key.packed() + number.to_bytes(4, "big")


def _block_key(group: int, block: int) -> bytes:
    return group.to_bytes(4, "big") + block.to_bytes(4, "big")
