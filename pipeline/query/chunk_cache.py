"""What statements gave for each chunk, kept between questions: a panel that is refreshed asks the same of the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunks import CHUNK_NUMBER, ChunkReader, ChunkRef
from pipeline.spans import schema

Key = tuple[str, str, str]  # URL of the chunk, statement, its values
BATCH_SPANS = 2_000_000  # of chunks that are asked at once: each row of the answer has its chunk's URL
SHARE = 64  # a table that takes more than this part of the cache is not kept
KEY_BYTES = 1000  # what a key and an empty table take, about


class ChunkCache:
    """Tables by chunk and statement, the least recently used go first. Thread-safe.

    A chunk never changes, so neither does what a statement gives for it.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._bytes = 0
        self._tables: OrderedDict[Key, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def tables(
        self,
        refs: Sequence[ChunkRef],
        asked: tuple[str, Sequence[Any]],
        reader: ChunkReader,
        read: Callable[[list[ChunkRef]], pa.Table],
    ) -> list[pa.Table]:
        """A table a chunk that can be read. asked: the statement without chunks. read: runs it over some of them.

        What `read` gives has the column CHUNK_NUMBER, of the chunks that can be read; the tables do not.
        """
        keys = {ref.url: (ref.url, asked[0], repr(asked[1])) for ref in refs}
        found = {url: schema.plain(table) for url, key in keys.items() if (table := self._get(key)) is not None}
        if reader.session.watch is not None:
            reader.session.watch.kept([ref for ref in refs if ref.url in found])
        for some in _batches([ref for ref in refs if ref.url not in found]):
            rows = read(some)
            numbers, rows = rows.column(CHUNK_NUMBER), rows.drop_columns(CHUNK_NUMBER)
            # Those that turned out to be unreadable were left out of the list
            for number, ref in enumerate(filter(reader.can_read, some)):
                own = rows.filter(pc.equal(numbers, number))
                found[ref.url] = own.combine_chunks()
                self._put(keys[ref.url], _packed(found[ref.url]))
        return list(found.values())

    def _get(self, key: Key) -> pa.Table | None:
        with self._lock:
            if (found := self._tables.get(key)) is not None:
                self._tables.move_to_end(key)
            return found

    def _put(self, key: Key, table: pa.Table) -> None:
        if table.nbytes > self.bytes_max // SHARE:
            return
        with self._lock:
            if (old := self._tables.pop(key, None)) is not None:
                self._bytes -= old.nbytes + KEY_BYTES
            self._tables[key] = table
            self._bytes += table.nbytes + KEY_BYTES
            while self._bytes > self.bytes_max:
                _, gone = self._tables.popitem(last=False)
                self._bytes -= gone.nbytes + KEY_BYTES


def _packed(table: pa.Table) -> pa.Table:
    """Its texts, few and often, each once; whole numbers in half the room where that does."""
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(at, field.name, table.column(at).dictionary_encode())
    return table


def _batches(refs: Sequence[ChunkRef]) -> list[list[ChunkRef]]:
    batches: list[list[ChunkRef]] = []
    spans = BATCH_SPANS
    for ref in refs:
        spans += ref.entry.spans
        if spans > BATCH_SPANS:
            batches.append([])
            spans = ref.entry.spans
        batches[-1].append(ref)
    return batches
