"""The catalog's rows: of each manifest what is needed to choose among its chunks, and what edits make of it."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from pipeline.store.edits import EditState
from pipeline.store.filter_groups import ChunkKey
from pipeline.store.manifest import ChunkEntry, Manifest, chunk_values, parse_chunk_object

ADDED = 1 << 30  # numbers of chunks that edits added begin here


class ChunkRow(NamedTuple):
    """A chunk of a manifest: its number there, and the bounds of its times, outliers left out."""

    number: int
    tenant: str
    start_min: int
    end_max: int
    outliers: bool


class Row(NamedTuple):
    """A manifest: its last offset, its token, its chunks."""

    last: int
    token: str
    chunks: list[ChunkRow]

    def to_json(self) -> bytes:
        """As it stands in the database."""
        return orjson.dumps([self.last, self.token, *map(list, self.chunks)])

    @classmethod
    def from_json(cls, content: bytes) -> Row:
        """As it was written."""
        last, token, *chunks = orjson.loads(content)
        return cls(last, token, [ChunkRow(*one) for one in chunks])


class TenantChunks:
    """The chunks of one tenant as columns: keys, and the bounds of their times."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, ChunkKey]] = []
        self._start_min = np.zeros(0, dtype=np.uint64)
        self._end_max = np.zeros(0, dtype=np.uint64)
        self._stale = False
        self.with_outliers: list[ChunkKey] = []

    def add(self, key: ChunkKey, start_min_unix_ns: int, end_max_unix_ns: int, outliers: bool) -> None:
        """One more."""
        self._rows.append((start_min_unix_ns, end_max_unix_ns, key))
        self._stale = True
        if outliers:
            self.with_outliers.append(key)

    def remove(self, keys: set[ChunkKey]) -> None:
        """Those of them that are here."""
        self._rows = [row for row in self._rows if row[2] not in keys]
        self.with_outliers = [key for key in self.with_outliers if key not in keys]
        self._stale = True

    def __bool__(self) -> bool:
        return bool(self._rows)

    def within(self, start_ns: int, end_ns: int) -> list[ChunkKey]:
        """Keys of the chunks whose times overlap the range, outliers aside."""
        if self._stale:
            self._start_min = np.array([row[0] for row in self._rows], dtype=np.uint64)
            self._end_max = np.array([row[1] for row in self._rows], dtype=np.uint64)
            self._stale = False
        low, high = np.uint64(start_ns), np.uint64(end_ns)
        hit: npt.NDArray[np.bool_] = (self._start_min <= high) & (self._end_max >= low)
        return [self._rows[at][2] for at in np.flatnonzero(hit).tolist()]


def numbered(manifest: Manifest, edits: EditState) -> Iterator[tuple[int, ChunkEntry]]:
    """The chunks that count of a manifest, and their numbers: a number is never another chunk's."""
    own = {one.name: number for number, one in enumerate(manifest.chunks)}
    for one in edits.chunks_of(manifest):
        yield own.get(one.name, _number(one.name)), one


def row_of(manifest: Manifest, edits: EditState) -> Row:
    """A manifest's row, as it counts."""
    return Row(manifest.last, manifest.token, [_chunk_row(number, one) for number, one in numbered(manifest, edits)])


def changed_rows(
    partition: int,
    rows: Mapping[int, Row],
    edits: tuple[EditState, EditState],
    names_of: Callable[[int, int], Mapping[int, str]],
) -> tuple[dict[int, Row], list[ChunkKey], dict[ChunkKey, ChunkEntry]]:
    """What later edits make of a partition's rows: those that change, the chunks that are gone, those that are new.

    names_of: (partition, first offset) -> number -> name of the chunks in that row.
    """
    old, new = edits
    before = {one.chunk.name: one.first for one in old.added}
    after = {one.chunk.name for one in new.added}
    gone_by_first: dict[int, set[str]] = defaultdict(set)
    for name in new.removed.keys() - old.removed.keys():
        if name not in before:
            gone_by_first[_first_of(name)].add(name)
    for name, first in before.items():
        if name not in after:
            gone_by_first[first].add(name)
    added = [one for one in new.added if one.chunk.name not in before]
    changed: dict[int, Row] = {}
    gone: list[ChunkKey] = []
    for first in gone_by_first.keys() & rows.keys():
        numbers = {number for number, name in names_of(partition, first).items() if name in gone_by_first[first]}
        row = rows[first]
        changed[first] = row._replace(chunks=[one for one in row.chunks if one.number not in numbers])
        gone += [ChunkKey(partition, first, number) for number in numbers]
    put: dict[ChunkKey, ChunkEntry] = {}
    for one in added:
        if one.first in rows:
            row, number = changed.get(one.first, rows[one.first]), _number(one.chunk.name)
            changed[one.first] = row._replace(chunks=[*row.chunks, _chunk_row(number, one.chunk)])
            put[ChunkKey(partition, one.first, number)] = one.chunk
    return changed, gone, put


def kept_values(chunk: ChunkEntry) -> dict[str, Any]:
    """What is kept of a chunk's entry."""
    return chunk_values(chunk) | {"services": {service: {} for service in chunk.services}}


def _chunk_row(number: int, one: ChunkEntry) -> ChunkRow:
    latest = max(one.end_max_unix_ns, one.start_max_unix_ns)
    return ChunkRow(number, one.tenant, one.start_min_unix_ns, latest, bool(one.outliers))


def _number(name: str) -> int:
    """The number of an added chunk: by its name, so that filters of one that was there before are not taken for its."""
    return ADDED + (zlib.crc32(name.encode()) & (ADDED - 1))


def _first_of(name: str) -> int:
    """The first offset in a chunk's name; -1 in others'."""
    parsed = parse_chunk_object(name)
    return parsed[2] if parsed else -1
