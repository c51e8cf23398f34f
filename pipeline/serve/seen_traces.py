"""Traces that somebody looks at, kept for a moment: what is asked of their spans reads nothing again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from pipeline.query.trace_by_id import FoundTrace

Key = tuple[tuple[str, ...], bytes, int | None, int | None]  # tenants, trace ID, start and end that were asked about


def key_of(tenants: Sequence[str], trace_id: bytes, start_ns: int | None, end_ns: int | None) -> Key:
    """What a trace was found by: who asked, and about what."""
    return tuple(tenants), trace_id, start_ns, end_ns


class SeenTraces:
    """Found traces up to `bytes_max` together, each for `s_max` since it was found; the least recently used go first.

    For an event loop's one thread.
    """

    def __init__(self, bytes_max: int, s_max: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_max = bytes_max
        self._s_max = s_max
        self._clock = clock
        self._bytes = 0
        self._traces: OrderedDict[Key, tuple[float, FoundTrace]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return self._bytes

    def get(self, key: Key) -> FoundTrace | None:
        """The trace, if it was put lately."""
        self._drop_old()
        if key not in self._traces:
            return None
        self._traces.move_to_end(key)
        return self._traces[key][1]

    def put(self, key: Key, found: FoundTrace) -> None:
        """Keep a trace. One that may not be complete, that has no spans or that is too large is not kept."""
        self._drop(key)
        self._drop_old()
        if found.reasons or not found.spans.num_rows or found.spans.nbytes > self._bytes_max:
            return
        self._traces[key] = (self._clock(), found)
        self._bytes += found.spans.nbytes
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._traces)))

    def _drop_old(self) -> None:
        since_s = self._clock() - self._s_max
        for key in [key for key, (found_s, _) in self._traces.items() if found_s <= since_s]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        if key in self._traces:
            self._bytes -= self._traces.pop(key)[1].spans.nbytes
