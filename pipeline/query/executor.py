"""Where a statement over chunks runs: in this process, or as tasks elsewhere (pipeline/query/spread.py)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.query.chunks import ChunkReader, ChunkRef, ForChunks

BATCH_SPANS = 2_000_000  # of chunks that are asked at once: each row of the answer has its chunk's number


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement whose rows have the column CHUNK_NUMBER, as ChunkReader.read takes it. live: no rows."""

    statement: ForChunks
    live: pa.Table


class Executor(Protocol):
    """Runs statements over chunks, a batch of chunks at a time."""

    def each(
        self, reader: ChunkReader, refs: Sequence[ChunkRef], asked: Asked
    ) -> Generator[tuple[list[ChunkRef], pa.Table]]:
        """Batches of the chunks, in any order, with the rows of each; numbers count those that `reader` can read.

        Raises as ChunkReader.read does. Close the iterator where not all of it is taken.
        """

    def looked(self) -> None:
        """Returns when it is known whether what it needs is there: after some seconds at most."""

    def close(self) -> None:
        """Let go of what it holds."""


class OwnThreads:
    """One batch after the other, in the thread that asks, by the process's own engine."""

    def each(
        self, reader: ChunkReader, refs: Sequence[ChunkRef], asked: Asked
    ) -> Generator[tuple[list[ChunkRef], pa.Table]]:
        """As Executor says."""
        for some in batches(refs, BATCH_SPANS):
            rows = reader.read(some, asked.statement, live=asked.live)
            reader.session.let_go(ref.url for ref in some)
            yield some, rows

    def looked(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Nothing is held."""


def batches(refs: Sequence[ChunkRef], spans_max: int) -> list[list[ChunkRef]]:
    """In this order, cut before more than so many spans are in one; a chunk with more is alone."""
    found: list[list[ChunkRef]] = []
    spans = spans_max
    for ref in refs:
        spans += ref.entry.spans
        if spans > spans_max:
            found.append([])
            spans = ref.entry.spans
        found[-1].append(ref)
    return found
