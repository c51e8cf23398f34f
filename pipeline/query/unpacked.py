"""Columns of live segments, unpacked and kept: questions that come often read the same few columns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from pipeline.query.blocks import LiveSegment


class _Kept(NamedTuple):
    packed: bytes  # held, so that its identity stays its own
    column: pa.ChunkedArray


class Unpacked:
    """The columns used last, up to `bytes_max`. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def read(self, segment: LiveSegment, columns: Iterable[str]) -> pa.Table:
        """As LiveSegment.read."""
        if not segment.columns:
            return segment.read(list(columns))
        return pa.table({name: self._column(segment.columns[name]) for name in columns if name in segment.columns})

    def _column(self, packed: bytes) -> pa.ChunkedArray:
        with self._lock:
            if (kept := self._kept.get(id(packed))) is not None:
                self._kept.move_to_end(id(packed))
                return kept.column
        column = pa.ipc.open_stream(packed).read_all().column(0)
        with self._lock:
            if id(packed) not in self._kept:
                self._kept[id(packed)] = _Kept(packed, column)
                self.nbytes += column.nbytes
                while self.nbytes > self._bytes_max and self._kept:
                    _, oldest = self._kept.popitem(last=False)
                    self.nbytes -= oldest.column.nbytes
        return column
