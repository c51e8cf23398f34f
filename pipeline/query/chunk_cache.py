"""What statements gave for each chunk and live segment, kept between questions: a panel asks the same of the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunks import CHUNK_NUMBER, ChunkReader, ChunkRef, numbered
from pipeline.query.executor import Asked, Executor, OwnThreads
from pipeline.spans import schema

Key = tuple[str, str, str]  # URL of the chunk or name of the segment, statement, its values
Came = Callable[[pa.Table, list[ChunkRef]], None]  # hears the rows so far, and the chunks that are still to come
NOTHING: Mapping[str, Callable[[], pa.Table]] = MappingProxyType({})
SHARE = 16  # a table that takes more than this part of the cache is not kept
KEY_BYTES = 1000  # what a key and an empty table take, about


class ChunkCache:
    """Tables by chunk and statement, the least recently used go first. Thread-safe.

    A chunk never changes, nor does a live segment, so neither does what a statement gives for it.
    """

    def __init__(self, bytes_max: int, executor: Executor | None = None) -> None:
        """executor: reads what is not known; without one, the thread that asks."""
        self.bytes_max = bytes_max
        self._bytes = 0
        self._tables: OrderedDict[Key, pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._executor = executor or OwnThreads()

    def rows(
        self,
        refs: Sequence[ChunkRef],
        asked: Asked,
        reader: ChunkReader,
        *,
        live: Mapping[str, Callable[[], pa.Table]] = NOTHING,
        opened: Callable[[list[ChunkRef]], None] = lambda _refs: None,
        came: Came | None = None,
    ) -> pa.Table | None:
        """What a statement gives for each chunk that can be read and for live rows, one after the other.

        None where there is none of either; without CHUNK_NUMBER. live: a name that no other rows ever have, and them;
        opened: hears which chunks are not known and read.
        """
        text, values = asked.of.statement([])
        keys = {name: (name, text, repr(values)) for name in (*(ref.url for ref in refs), *live)}
        found = {name: table for name, key in keys.items() if (table := self._get(key)) is not None}
        if reader.session.watch is not None:
            reader.session.watch.kept([ref for ref in refs if ref.url in found])

        def keep(names: Sequence[str], rows: pa.Table) -> None:
            numbers, rest = rows.column(CHUNK_NUMBER), rows.drop_columns(CHUNK_NUMBER)
            for number, name in enumerate(names):
                found[name] = _packed(rest.filter(pc.equal(numbers, number)).combine_chunks())
                self._put(keys[name], found[name])

        missing = left = [ref for ref in refs if ref.url not in found]
        opened(missing)
        if new := [name for name in live if name not in found]:
            rows = [asked.live, *(numbered(live[name](), number) for number, name in enumerate(new))]
            keep(new, reader.read([], asked.of.statement, live=pa.concat_tables(rows)))
        if came is not None and found and left:
            came(_joined(found.values()), left)
        with closing(self._executor.each(reader, missing, asked)) as read:
            for some, chunk_rows in read:
                # Those that turned out to be unreadable were left out of the list
                keep([ref.url for ref in some if reader.can_read(asked.of.wanted(ref).url)], chunk_rows)
                left = [ref for ref in left if ref not in some]
                if came is not None and found and left:
                    came(_joined(found.values()), left)
        return _joined([found[name] for name in keys if name in found]) if found else None

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


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    return schema.plain(pa.concat_tables(tables, promote_options="permissive"))


def _packed(table: pa.Table) -> pa.Table:
    """Its texts, few and often, each once; whole numbers in half the room where that does."""
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(at, field.name, table.column(at).dictionary_encode())
    return table
