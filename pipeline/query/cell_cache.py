"""Cells of chunks, kept between questions: a panel that is refreshed asks the same of the same chunks."""

from __future__ import annotations

import threading
from collections import OrderedDict

import pyarrow as pa

Key = tuple[str, str, str]  # URL of the chunk, statement, its values
KEY_BYTES = 1000  # what a key and an empty table take, about


class CellCache:
    """Cells by chunk and statement, the least recently used go first. Thread-safe.

    A chunk never changes, so neither do its cells.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._cells: OrderedDict[Key, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Of all cells kept."""
        return self._bytes

    def get(self, key: Key) -> pa.Table | None:
        """The cells, None where they are not kept."""
        with self._lock:
            if (found := self._cells.get(key)) is not None:
                self._cells.move_to_end(key)
            return found

    def put(self, key: Key, cells: pa.Table) -> None:
        """Keep cells; what is too large for all of the cache is not kept."""
        with self._lock:
            if (old := self._cells.pop(key, None)) is not None:
                self._bytes -= old.nbytes + KEY_BYTES
            self._cells[key] = cells
            self._bytes += cells.nbytes + KEY_BYTES
            while self._bytes > self._bytes_max:
                _, gone = self._cells.popitem(last=False)
                self._bytes -= gone.nbytes + KEY_BYTES
