"""What statements gave for each chunk, kept between questions: a panel that is refreshed asks the same of the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunks import CHUNK_NUMBER, ChunkReader, ChunkRef
from pipeline.query.executor import Asked, Executor, OwnThreads
from pipeline.spans import schema

Key = tuple[str, str, str]  # URL of the chunk, statement, its values
Came = Callable[
    [list[pa.Table], list[ChunkRef]], None
]  # hears the tables so far, and the chunks that are still to come
SHARE = 64  # a table that takes more than this part of the cache is not kept
KEY_BYTES = 1000  # what a key and an empty table take, about


class ChunkCache:
    """Tables by chunk and statement, the least recently used go first. Thread-safe.

    A chunk never changes, so neither does what a statement gives for it.
    """

    def __init__(self, bytes_max: int, executor: Executor | None = None) -> None:
        """executor: reads what is not known; without one, the thread that asks."""
        self.bytes_max = bytes_max
        self._bytes = 0
        self._tables: OrderedDict[Key, pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._executor = executor or OwnThreads()

    def tables(
        self,
        refs: Sequence[ChunkRef],
        asked: Asked,
        reader: ChunkReader,
        opened: Callable[[list[ChunkRef]], None] = lambda _refs: None,
        came: Came | None = None,
    ) -> list[pa.Table]:
        """A table a chunk that can be read, without CHUNK_NUMBER. opened: hears which ones are not known and read."""
        text, values = asked.statement([])
        keys = {ref.url: (ref.url, text, repr(values)) for ref in refs}
        found = {url: schema.plain(table) for url, key in keys.items() if (table := self._get(key)) is not None}
        if reader.session.watch is not None:
            reader.session.watch.kept([ref for ref in refs if ref.url in found])
        missing = left = [ref for ref in refs if ref.url not in found]
        opened(missing)
        if came is not None and found and left:
            came(list(found.values()), left)
        with closing(self._executor.each(reader, missing, asked)) as read:
            for some, rows in read:
                numbers, rest = rows.column(CHUNK_NUMBER), rows.drop_columns(CHUNK_NUMBER)
                # Those that turned out to be unreadable were left out of the list
                for number, ref in enumerate(filter(reader.can_read, some)):
                    own = rest.filter(pc.equal(numbers, number))
                    found[ref.url] = own.combine_chunks()
                    self._put(keys[ref.url], _packed(found[ref.url]))
                left = [ref for ref in left if ref not in some]
                if came is not None and found and left:
                    came(list(found.values()), left)
        return [found[ref.url] for ref in refs if ref.url in found]

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
