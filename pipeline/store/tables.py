"""The worker's RocksDB tables: live segments and their index. One database a worker, a column family a table.

Nothing here outlives an assignment: a partition's rows are emptied when it is assigned and refilled from Kafka, so the
database may be lost at any time and needs no write-ahead log.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from pipeline.partition.segment import Segment
from pipeline.spans.index import Attributes, Index, Services, add_attributes, add_services
from topics.errors import DiskFullError, NotOwnerError

LIVE, SEGMENTS, SERVICES, ATTRIBUTES = "live", "segments", "services", "attributes"
TABLES = (LIVE, SEGMENTS, SERVICES, ATTRIBUTES)
IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
PLAIN_OPTIONS = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
NO_SPACE = "No space left on device"  # in the text of an error of RocksDB, which has no type of its own
COMPRESSED_BYTES_MIN = 1 << 20  # of a table: the least cost of compressing is 20 us a buffer, and there are 180


class Slot(NamedTuple):
    """Where the rows of one assignment of a partition stand; epoch: a number no two assignments share."""

    partition: int
    epoch: int

    @property
    def prefix(self) -> bytes:
        """A partition, and each of its assignments, is one range of keys."""
        return self.partition.to_bytes(4, "big") + self.epoch.to_bytes(4, "big")

    def key(self, segment: Segment) -> bytes:
        """Key of a segment in every table: never that of another segment, merged ones included."""
        return self.prefix + segment.first.to_bytes(8, "big") + segment.last.to_bytes(8, "big")


class Tables:
    """The tables under one folder. Thread-safe; a write is one batch; caches and buffers take `rocksdb_bytes`.

    What writes raises DiskFullError, and may be tried again.
    """

    def __init__(self, path: Path, *, rocksdb_bytes: int) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        self._path = path
        options = _options(rocksdb_bytes)
        self._db = Rdict(
            str(path),
            options=options,
            column_families={name: _options(rocksdb_bytes) for name in TABLES},
            access_type=AccessType.read_write(),
        )
        self._families: dict[str, Rdict] = {name: self._db.get_column_family(name) for name in TABLES}
        self._handles: dict[str, ColumnFamily] = {name: self._db.get_column_family_handle(name) for name in TABLES}
        self._no_log = WriteOptions()
        self._no_log.disable_wal = True

    def index_segment(self, slot: Slot, segment: Segment, index: Index) -> None:
        """Write a segment's index rows in one batch."""
        batch = WriteBatch(raw_mode=True)
        self._put_index(batch, slot, segment, index)
        self._write(batch)

    def put_rows(self, slot: Slot, segment: Segment, spans: pa.Table) -> None:
        """Write a segment's rows, so that its in-memory copy may go."""
        with self._naming_a_full_disk():
            self._families[LIVE].put(slot.key(segment), ipc_bytes(spans), self._no_log)

    def merge_segments(self, slot: Slot, olds: list[Segment], merged: Segment) -> None:
        """Put `merged` in the place of `olds` in one batch: their index rows are added up, their rows deleted."""
        batch = WriteBatch(raw_mode=True)
        services: Services = {}
        attributes: Attributes = {}
        for old in olds:
            key = slot.key(old)
            add_services(services, self._json(SERVICES, key))
            add_attributes(attributes, self._json(ATTRIBUTES, key))
            for name in TABLES:
                batch.delete(key, self._handles[name])
        self._put_index(batch, slot, merged, Index(services, attributes))
        self._write(batch)

    def drop_segments(self, slot: Slot, segments: list[Segment]) -> None:
        """Delete the rows of segments that are stored and past their grace."""
        batch = WriteBatch(raw_mode=True)
        for segment in segments:
            for name in TABLES:
                batch.delete(slot.key(segment), self._handles[name])
        self._write(batch)

    def clear(self, partition: int) -> None:
        """Empty a partition's part of every table: on assignment, and when it is gone."""
        low, high = Slot(partition, 0).prefix, Slot(partition + 1, 0).prefix
        with self._naming_a_full_disk():
            for family in self._families.values():
                family.delete_range(low, high, write_opt=self._no_log)

    def segment_ipc(self, slot: Slot, segment: Segment) -> bytes:
        """A segment's rows as one Arrow IPC stream. Raises NotOwnerError when they are gone."""
        value: bytes | None = self._families[LIVE].get(slot.key(segment))
        if value is None:
            raise NotOwnerError(
                f"the segment at {segment.first} of partition {slot.partition} was dropped, merged or let go"
            )
        return value

    def segment_rows(self, slot: Slot, segment: Segment) -> pa.Table:
        """A segment's rows. Raises NotOwnerError when they are gone."""
        return pa.ipc.open_stream(self.segment_ipc(slot, segment)).read_all()

    def rows(self, table: str, slot: Slot) -> Iterator[tuple[int, Any]]:
        """(first offset, value) of an assignment's rows of an index table, in offset order."""
        for key, value in self._families[table].items(from_key=slot.prefix):
            if not key.startswith(slot.prefix):
                return
            yield int.from_bytes(key[8:16], "big"), orjson.loads(value)

    def close(self) -> None:
        """Release the folder. No reads or writes may be under way."""
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._handles.clear()  # the folder is free when nothing refers to the database any more
        self._db.close()

    def _write(self, batch: WriteBatch) -> None:
        with self._naming_a_full_disk():
            self._db.write(batch, self._no_log)

    @contextmanager
    def _naming_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            if NO_SPACE not in str(exc):
                raise
            raise DiskFullError(f"the disk of {self._path} (worker.data_dir) is full: make room there") from exc

    def _put_index(self, batch: WriteBatch, slot: Slot, segment: Segment, index: Index) -> None:
        key = slot.key(segment)
        batch.put(key, orjson.dumps(_segment_row(segment)), self._handles[SEGMENTS])
        batch.put(key, orjson.dumps(index.services), self._handles[SERVICES])
        batch.put(key, orjson.dumps(index.attributes), self._handles[ATTRIBUTES])

    def _json(self, table: str, key: bytes) -> dict[str, Any]:
        value = self._families[table].get(key)
        return {} if value is None else orjson.loads(value)


def ipc_bytes(spans: pa.Table) -> pa.Buffer | bytes:
    """A span table as one Arrow IPC stream; lz4 where it is large."""
    sink = pa.BufferOutputStream()
    options = IPC_OPTIONS if spans.nbytes >= COMPRESSED_BYTES_MIN else PLAIN_OPTIONS
    with pa.ipc.new_stream(sink, spans.schema, options=options) as writer:
        writer.write_table(spans)
    return sink.getvalue().to_pybytes()


def _segment_row(segment: Segment) -> dict[str, Any]:
    return {
        "first": segment.first,
        "last": segment.last,
        "spans": segment.spans_count,
        "bytes": segment.nbytes,
        "record_time_min_unix_ns": segment.record_time_min_unix_ns,
        "record_time_max_unix_ns": segment.record_time_max_unix_ns,
        "losses": segment.losses,
    }


def _options(rocksdb_bytes: int) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(rocksdb_bytes // 4)
    options.set_max_write_buffer_number(2)
    options.set_db_write_buffer_size(rocksdb_bytes // 2)
    options.set_compression_type(DBCompressionType.none())  # values are lz4 already
    options.set_max_background_jobs(1)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(rocksdb_bytes // 2))
    options.set_block_based_table_factory(table)
    return options
