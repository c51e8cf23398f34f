"""The trace-ID filters of many chunks, laid so that 64 of them are asked with one read.

The filters of 64 chunks of one tenant and partition with equally many blocks make a group: for each block number the
blocks of all 64 stand in one value. Until a group is full its chunks' filters are asked one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson
from rocksdict import WriteBatch

from pipeline.store import trace_filter

GROUP_CHUNKS = 64
NO_FILTER = b""  # the object is gone: the chunk counts as a maybe for ever


class ChunkKey(NamedTuple):
    """A chunk: its manifest's partition and first offset, and its number there."""

    partition: int
    first: int
    number: int

    def packed(self) -> bytes:
        """The key of its filter."""
        return self.partition.to_bytes(4, "big") + self.first.to_bytes(8, "big") + self.number.to_bytes(4, "big")


class _Group(NamedTuple):
    number: int
    blocks_log2: int
    members: list[ChunkKey]


class _Shelf:
    """The filters of one tenant and partition. single: blocks_log2 -> chunks whose filters stand alone."""

    def __init__(self) -> None:
        self.groups: list[_Group] = []
        self.single: dict[int, list[ChunkKey]] = defaultdict(list)
        self.unknown: list[ChunkKey] = []


class FilterGroups:
    """The filters in the catalog's database. Not thread-safe: the catalog holds its lock."""

    def __init__(self, db: Any, families: Mapping[str, Any], handles: Mapping[str, Any]) -> None:
        self._db, self._families, self._handles = db, families, handles
        self._shelves: dict[tuple[str, int], _Shelf] = defaultdict(_Shelf)
        self._grouped: set[ChunkKey] = set()
        self._held: dict[ChunkKey, int] = {}
        self._tenant: dict[ChunkKey, str] = {}
        self._wanted: dict[ChunkKey, None] = {}
        self._next_group = 0

    def open(self) -> None:
        """Read which groups there are and which filters stand alone: not the filters themselves."""
        for key, value in self._families["members"].items():
            tenant, partition, blocks_log2, members = orjson.loads(value)
            group = _Group(int.from_bytes(key, "big"), blocks_log2, [ChunkKey(*member) for member in members])
            self._shelves[tenant, partition].groups.append(group)
            self._grouped.update(group.members)
            self._next_group = max(self._next_group, group.number + 1)
        for key, value in self._families["filters"].items():
            chunk = ChunkKey(*(int.from_bytes(key[start:end], "big") for start, end in ((0, 4), (4, 12), (12, 16))))
            self._held[chunk] = trace_filter.blocks_log2_of(value) if value != NO_FILTER else -1

    def expect(self, tenant: str, key: ChunkKey) -> None:
        """A chunk is there: put it on its shelf, and note whether its filter must be read."""
        self._tenant[key] = tenant
        shelf = self._shelves[tenant, key.partition]
        if key in self._grouped:
            return
        blocks_log2 = self._held.get(key)
        if blocks_log2 is None:
            self._wanted[key] = None
            shelf.unknown.append(key)
        elif blocks_log2 < 0:
            shelf.unknown.append(key)
        else:
            shelf.single[blocks_log2].append(key)

    def missing(self, chunks_max: int) -> list[ChunkKey]:
        """Chunks whose filters must be read, newest first."""
        return list(reversed(self._wanted))[:chunks_max]

    def put(self, key: ChunkKey, content: bytes | None) -> None:
        """Take a chunk's filter; None when its object is gone."""
        if self._wanted.pop(key, 0) == 0:
            return
        self._families["filters"][key.packed()] = content or NO_FILTER
        if not content:
            return
        tenant = self._tenant[key]
        shelf, blocks_log2 = self._shelves[tenant, key.partition], trace_filter.blocks_log2_of(content)
        shelf.unknown.remove(key)
        single = shelf.single[blocks_log2]
        single.append(key)
        if len(single) == GROUP_CHUNKS:
            self._make_group(tenant, key.partition, shelf, blocks_log2)

    def might_hold(self, tenant: str, partition: int, trace_id: bytes) -> list[ChunkKey]:
        """The tenant's chunks of the partition that may hold the trace."""
        shelf = self._shelves.get((tenant, partition))
        if shelf is None:
            return []
        found = list(shelf.unknown)
        for group in shelf.groups:
            number, wanted = trace_filter.block_of(trace_id, group.blocks_log2)
            value = self._families["groups"].get(_block_key(group.number, number))
            blocks = np.frombuffer(value, dtype=np.uint8).reshape(-1, trace_filter.BLOCK_BYTES)
            hit = ((blocks & wanted) == wanted).all(axis=1)
            found += [group.members[at] for at in np.flatnonzero(hit).tolist()]
        for keys in shelf.single.values():
            for key in keys:
                content = self._families["filters"].get(key.packed())
                if content is None or trace_filter.might_hold(content, trace_id):
                    found.append(key)
        return found

    def _make_group(self, tenant: str, partition: int, shelf: _Shelf, blocks_log2: int) -> None:
        members = shelf.single.pop(blocks_log2)
        filters = [self._families["filters"].get(key.packed()) for key in members]
        blocks = np.stack(
            [np.frombuffer(one, dtype=np.uint8, offset=trace_filter.HEADER_BYTES) for one in filters]
        ).reshape(len(members), -1, trace_filter.BLOCK_BYTES)
        group = _Group(self._next_group, blocks_log2, members)
        self._next_group += 1
        batch = WriteBatch(raw_mode=True)
        for number in range(blocks.shape[1]):
            batch.put(_block_key(group.number, number), blocks[:, number].tobytes(), self._handles["groups"])
        row = orjson.dumps([tenant, partition, blocks_log2, [list(member) for member in members]])
        batch.put(group.number.to_bytes(4, "big"), row, self._handles["members"])
        for key in members:
            batch.delete(key.packed(), self._handles["filters"])
        self._db.write(batch)
        shelf.groups.append(group)
        self._grouped.update(members)


def _block_key(group: int, block: int) -> bytes:
    return group.to_bytes(4, "big") + block.to_bytes(4, "big")
