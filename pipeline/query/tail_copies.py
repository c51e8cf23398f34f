"""Tails read from Kafka, kept while nobody owns their partition: the next question reads on from their end."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.query.blocks import LiveSegment, compacted
from pipeline.query.tail import TailRead


class _Copy(NamedTuple):
    start: int
    reached: int
    segments: tuple[LiveSegment, ...]


class TailCopies:
    """Copies by partition, all of them together up to `bytes_max`. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._copies: dict[int, _Copy] = {}
        self._lock = threading.Lock()

    def known(self, partition: int, after: int) -> tuple[int, tuple[LiveSegment, ...]]:
        """Where reading goes on, and what is held from `after` up to there.

        Nothing where a copy begins before: what was stored since may name offsets as lost whose spans were the first
        ones, so that later copies of them, which must count now, were left out.
        """
        with self._lock:
            copy = self._copies.get(partition)
        return (after, ()) if copy is None or copy.start != after else (copy.reached, copy.segments)

    def keep(self, partition: int, after: int, held: Sequence[LiveSegment], read: TailRead) -> TailRead:
        """What was held and what was read after it, as one; it is the new copy. Merges: call it off the event loop."""
        segments = compacted([*held, *read.segments])
        if not read.losses:
            with self._lock:
                self._copies[partition] = _Copy(after, read.reached, tuple(segments))
                while sum(s.nbytes for copy in self._copies.values() for s in copy.segments) > self._bytes_max:
                    del self._copies[next(iter(self._copies))]
        return TailRead(
            start=after,
            reached=read.reached,
            segments=segments,
            losses=read.losses,
            reasons=read.reasons,
            records=read.records,
        )

    def forget(self, owned: Mapping[int, bool]) -> None:
        """Let copies of partitions go that have an owner again."""
        with self._lock:
            for partition, has_owner in owned.items():
                if has_owner:
                    self._copies.pop(partition, None)
