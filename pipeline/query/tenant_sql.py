"""SQL of callers over their own spans: bounded in number, time, memory and bytes, its rows batch by batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import duckdb
import pyarrow as pa

from pipeline.query.chunks import ChunkRef, refs_of, told_damage
from pipeline.query.engine import UNREADABLE, stand_back
from pipeline.query.sandbox import BASE_COLUMNS, TenantRows, sandbox
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.query.statement import Statement
from pipeline.query.turns import TIMEOUT
from pipeline.store.manifest import ChunkEntry
from topics.errors import (
    BadQuestionError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
    SpanstreamError,
    StoreUnavailableError,
)
from topics.settings import QuerierSettings, StoreSettings

T = TypeVar("T")
BATCH_ROWS = 2048
INTERRUPT_EVERY_S = 0.05
OF_A_CHUNK = ".parquet'"  # in the engine's sentence; what it calls an invalid input may be the caller's as well


class ChunksByTime(Protocol):
    """The catalog, as far as SQL needs it. May block."""

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """Chunks with spans in the range; their outliers count."""


@dataclass(slots=True)
class SqlAnswer:
    """Rows as they are computed. reasons: why some may be missing. Close it in the end, whether read or not.

    `batches` raises what `TenantSql.ask` raises, and QueryTooLargeError above querier.sql_bytes_max.
    """

    schema: pa.Schema
    batches: AsyncIterator[pa.RecordBatch]
    reasons: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None


class TenantSql:
    """Answers statements. One is stopped when its caller's task is cancelled."""

    def __init__(
        self,
        catalog: ChunksByTime,
        snapshots: Snapshots,
        querier: QuerierSettings,
        store: StoreSettings,
        reach_store: Callable[[], None],
    ) -> None:
        """reach_store: called before chunks are read; raises StoreUnavailableError where the store is away."""
        self._reach_store = reach_store
        self._catalog, self._snapshots = catalog, snapshots
        self._querier, self._store = querier, store
        self._threads = ThreadPoolExecutor(querier.sql_queries_max, "sql", stand_back, (querier.niceness,))

    async def ask(
        self, tenants: Sequence[str], statement: Statement, range_ns: tuple[int, int], left: Callable[[], None]
    ) -> SqlAnswer:
        """Run it, up to its first rows; call `left` when its thread is free again, also where this raises.

        Raises BadQuestionError, QueryTimeoutError, QueryTooLargeError and StoreUnavailableError.
        """
        run = _Run(self._threads, time.monotonic() + self._querier.query_timeout_s, left)
        try:
            snapshot = await self._snapshots.take()
            rows = await self._snapshots.in_thread(lambda: self._rows(snapshot, tenants, statement, range_ns))
            schema = await run.begin(
                lambda: sandbox(rows, range_ns, self._querier, self._store, parents=statement.parents), statement.text
            )
        except BaseException:
            run.close()
            raise
        batches = run.batches(self._querier.sql_bytes_max)
        reasons = snapshot.reasons + snapshot.told_losses() + [reason for one in rows for reason in one.reasons]
        return SqlAnswer(schema, batches, reasons, run.close)

    def close(self) -> None:
        """End the threads; what runs ends by its time."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _rows(
        self, snapshot: Snapshot, tenants: Sequence[str], statement: Statement, range_ns: tuple[int, int]
    ) -> list[TenantRows]:
        found, size = list[TenantRows](), 0
        for tenant in tenants:
            refs = refs_of(self._catalog.chunks_for(tenant, *range_ns), snapshot.horizons)
            size += sum(ref.entry.bytes for ref in refs)
            live = _live(snapshot, tenant, statement, refs)
            found.append(TenantRows(tenant, [ref.url for ref in refs], live, told_damage(refs)))
        if size > self._querier.sql_chunk_bytes_max:
            raise QueryTooLargeError(
                f"the chunks of this range have {size} bytes, more than querier.sql_chunk_bytes_max: ask for less time"
            )
        if any(one.urls for one in found):
            self._reach_store()
        return found


def _live(snapshot: Snapshot, tenant: str, statement: Statement, refs: Sequence[ChunkRef]) -> pa.Table:
    """Live rows. Segments are of all tenants: a column without a value of this one is not told."""
    named = dict.fromkeys((*BASE_COLUMNS, *statement.columns))
    if not statement.everything:
        return snapshot.rows(list(named), tenant)
    rows = snapshot.rows(list(named | dict.fromkeys(sorted(snapshot.column_names()))), tenant)
    stored = {name for ref in refs for name in ref.entry.attributes}
    return rows.select(
        [
            name
            for name in rows.column_names
            if name in named or name in stored or rows.column(name).null_count < rows.num_rows
        ]
    )


class _Run:
    """One statement under way, in threads, a step at a time."""

    def __init__(self, threads: ThreadPoolExecutor, deadline_s: float, left: Callable[[], None]) -> None:
        self._threads, self._deadline_s, self._left = threads, deadline_s, left
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._reader: pa.RecordBatchReader | None = None
        self._first: pa.RecordBatch | None = None
        self._step: asyncio.Future[Any] | None = None
        self._closed = self._stopping = False

    async def begin(self, opened: Callable[[], duckdb.DuckDBPyConnection], text: str) -> pa.Schema:
        def work() -> pa.Schema:
            self._connection = opened()
            if self._stopping:
                raise QueryTimeoutError(TIMEOUT)
            self._reader = self._connection.execute(text).to_arrow_reader(BATCH_ROWS)
            self._first = next(self._reader, None)  # so that what fails at once has a status
            return self._reader.schema

        return await self._in_thread(work)

    async def batches(self, bytes_max: int) -> AsyncIterator[pa.RecordBatch]:
        batch, size = self._first, 0
        reader = self._reader
        assert reader is not None
        while batch is not None:
            size += batch.nbytes
            if size > bytes_max:
                raise QueryTooLargeError(f"the answer has more than {bytes_max} bytes (querier.sql_bytes_max)")
            yield batch
            if self._closed:
                raise QueryCancelledError("the query was cancelled by an administrator")
            batch = await self._in_thread(lambda: next(reader, None))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Raises what became of DuckDB's errors. A task that is cancelled interrupts the engine."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._step = future
        try:
            async with asyncio.timeout(self._deadline_s - time.monotonic()):
                return await asyncio.shield(future)
        except TimeoutError as exc:
            self._interrupt()
            raise QueryTimeoutError(TIMEOUT) from exc
        except asyncio.CancelledError:
            self._interrupt()
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as exc:
            raise _told(exc) from exc

    def _interrupt(self) -> None:
        """End the step under way. Again and again: the engine forgets one that comes just before a statement begins."""
        self._stopping = True
        if self._step is not None and not self._step.done():
            if self._connection is not None:
                self._connection.interrupt()
            asyncio.get_running_loop().call_later(INTERRUPT_EVERY_S, self._interrupt)

    def close(self) -> None:
        """Stop it and let the next one begin, once its step has ended."""
        if self._closed:
            return
        self._closed = True
        if self._step is None or self._step.done():
            self._end()
            return
        self._interrupt()
        self._step.add_done_callback(self._ended)

    def _ended(self, step: asyncio.Future[Any]) -> None:
        if not step.cancelled():
            step.exception()  # of no interest any more
        self._end()

    def _end(self) -> None:
        self._reader = self._first = None
        if self._connection is not None:
            self._connection.close()
        self._left()


def _told(exc: Exception) -> SpanstreamError:
    text = str(exc)[:500]
    if isinstance(exc, duckdb.OutOfMemoryException) or "Out of Memory" in text:
        return QueryTooLargeError(f"the query needs more memory than querier.sql_memory_bytes_max: {text}")
    if isinstance(exc, duckdb.InterruptException) or "INTERRUPT" in text:
        return QueryTimeoutError(TIMEOUT)
    if isinstance(exc, duckdb.PermissionException):
        return BadQuestionError("invalid SQL: only the views spans and traces can be read")
    if type(exc) in UNREADABLE and (type(exc) is not duckdb.InvalidInputException or OF_A_CHUNK in text):
        why, _, _ = text.partition("\n\nLINE ")  # of the views' statement, which nobody wrote
        return StoreUnavailableError(f"reading chunks: {why}")
    return BadQuestionError(f"invalid SQL: {text}")
