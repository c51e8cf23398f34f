"""Where a statement over chunks runs: in this process, or as tasks elsewhere (pipeline/query/spread.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pyarrow as pa

from pipeline import telemetry
from pipeline.query.chunk_columns import UNREADABLE
from pipeline.query.chunks import ChunkReader, ChunkRef, ForChunks, numbered
from pipeline.query.copies import Wanted
from topics.errors import StoreUnavailableError

BATCH_SPANS = 2_000_000  # of chunks that are asked at once: each row of the answer has its chunk's number


class OfChunk(Protocol):
    """What makes the rows of one chunk without the engine, of some columns."""

    @property
    def columns(self) -> Sequence[str]:
        """What it reads."""

    def of_chunk(self, source: str | pa.Buffer, check: Callable[[], None]) -> pa.Table:
        """source: of ChunkReader.source; check: is called now and then, and may raise. Raises what comes of a chunk
        that cannot be read. For several threads at once.
        """


class ChunkRows(NamedTuple):
    """What makes the rows of chunks: a statement with the column CHUNK_NUMBER, as ChunkReader.read takes it.

    plain: makes the same without that column; traces: of the objects with a row a trace, in the place of the chunks.
    """

    statement: ForChunks
    plain: OfChunk | None = None
    traces: bool = False

    def wanted(self, ref: ChunkRef) -> Wanted:
        """What is read of a chunk."""
        return ref.traces_wanted if self.traces else ref.wanted


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of chunks. live: no rows, with the columns of live ones."""

    of: ChunkRows
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
            left, parts = some, list[tuple[list[ChunkRef], pa.Table]]()
            if asked.of.plain is not None:
                tables = _plain(reader, some, asked.of.plain)
                found = [(ref, table) for ref, table in zip(some, tables, strict=True) if table is not None]
                left = [ref for ref, table in zip(some, tables, strict=True) if table is None]
                if found:
                    rows = pa.concat_tables(numbered(table, at) for at, (_, table) in enumerate(found))
                    parts.append(([ref for ref, _ in found], rows))
            if left:  # of which the engine says why not, or tries again
                rows = reader.read(left, asked.of.statement, traces=asked.of.traces, live=asked.live)
                parts.append((left, rows))
            reader.session.let_go(asked.of.wanted(ref).url for ref in some)
            yield from parts

    def looked(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Nothing is held."""


def _plain(reader: ChunkReader, refs: Sequence[ChunkRef], plain: OfChunk) -> list[pa.Table | None]:
    """The rows of each chunk, None where it cannot be read; one thread a core. Raises QueryTimeoutError,
    QueryTooLargeError.
    """
    session, began_s = reader.session, time.monotonic()
    session.open([ref.wanted for ref in refs])
    copied = session.files([ref.wanted for ref in refs], fetch=True)

    def source(ref: ChunkRef) -> str | pa.Buffer | None:
        try:
            return reader.source(ref) if reader.can_read(ref.url) else None
        except StoreUnavailableError:
            return None

    def of_chunk(content: str | pa.Buffer | None) -> pa.Table | None:
        try:
            return None if content is None else plain.of_chunk(content, session.check)
        except UNREADABLE:
            return None

    with ThreadPoolExecutor(min(pa.cpu_count(), len(refs)), "plain") as threads:
        tables = list(threads.map(of_chunk, map(source, refs)))  # a session belongs to the thread that asks
    session.release_memory()
    telemetry.CHUNKS_OPENED.inc(len(refs))
    if session.watch is not None:
        rows = sum(table.num_rows for table in tables if table is not None)
        session.watch.statement(f"without the engine: {', '.join(plain.columns)}", time.monotonic() - began_s, rows)
        session.watch.read(refs, len(copied))
    return tables


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
