"""DuckDB over chunks in the object store and Arrow tables in memory: bounded memory, threads, time."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import duckdb
import duckdb_extension_httpfs
import pyarrow as pa
from duckdb.func import FunctionNullHandling
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from pipeline.query.copies import Copies, Wanted
from pipeline.query.explained import Watch
from pipeline.query.turns import TIMEOUT, Lane
from pipeline.store.objects import ObjectStore
from pipeline.store.reach import FRESH_S, Reach, within
from pipeline.traceql.folding import int_power
from topics.errors import (
    BadQuestionError,
    QueryTimeoutError,
    QueryTooLargeError,
    SettingsError,
    StoreUnavailableError,
)
from topics.settings import QuerierSettings, StoreSettings

T = TypeVar("T")
INTERRUPTED_AGAIN_S = 0.05
# What comes of a chunk that cannot be read. At most damaged pages it is an error of no kind at all, at some an internal
# one, after which the engine goes on
UNREADABLE = (
    duckdb.IOException,
    duckdb.HTTPException,
    duckdb.InvalidInputException,
    duckdb.InternalException,
    duckdb.Error,
)
_names = itertools.count()


class Session:
    """One query's use of the engine, in one thread. `stop` may be called from another."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        deadline_s: float,
        copies: Copies,
        *,
        chunk_bytes_max: int,
        release_memory: Callable[[], None],
        watch: Watch | None = None,
    ) -> None:
        """chunk_bytes_max: of the objects that it may open; release_memory: to be called after work on much of it,
        gives back what is free; watch: looks on.
        """
        self.watch = watch
        self.release_memory = release_memory
        self._cursor = connection.cursor()
        self._copies = copies
        self._held: set[str] = set()
        self._opened: set[Wanted] = set()
        self._chunk_bytes_left = chunk_bytes_max
        self._deadline_s = deadline_s
        self._stopped, self._closed = threading.Event(), threading.Event()

    def sql(self, text: str, parameters: Sequence[Any] = (), **tables: pa.Table) -> pa.Table:
        """Run one statement, its answer as an Arrow table.

        A `{name}` in the text stands for the Arrow table of that name. Values are bound, never written into the text.
        Raises BadQuestionError (too deep an expression), QueryTimeoutError, QueryTooLargeError, StoreUnavailableError
        (an object is missing or cannot be read).
        """
        self.check()
        # Names of registered tables are one space for all cursors of a connection
        names = {name: f"table_{next(_names)}" for name in tables}
        for name, table in tables.items():
            self._cursor.register(names[name], table)
        began_s = time.monotonic()
        try:
            found = self._cursor.execute(text.format(**names), list(parameters)).to_arrow_table()
            if self.watch is not None:
                self.watch.statement(text, time.monotonic() - began_s, found.num_rows)
            return found
        except duckdb.InterruptException as exc:
            raise self._timeout() from exc
        except duckdb.OutOfMemoryException as exc:
            raise QueryTooLargeError(f"the query needs more memory than querier.memory_bytes_max: {exc}") from exc
        except (duckdb.ParserException, duckdb.BinderException) as exc:
            if "expression depth" not in str(exc):
                raise
            raise BadQuestionError("the query is nested too deep: ask with shorter expressions") from exc
        except duckdb.Error as exc:
            if type(exc) not in UNREADABLE:
                raise
            why, _, _ = str(exc)[:500].partition("\n\nLINE ")  # of the statement, which nobody wrote
            raise StoreUnavailableError(f"reading chunks: {why}") from exc
        finally:
            for name in names.values():
                with suppress(duckdb.Error):
                    self._cursor.unregister(name)

    def step(self, name: str, *, whole: bool = False) -> AbstractContextManager[None]:
        """A part of the question's way, for who looks on. whole: it reads the rest of traces."""
        return nullcontext() if self.watch is None else self.watch.step(name, whole=whole)

    def open(self, wanted: Sequence[Wanted]) -> None:
        """Count objects that are about to be read, here or elsewhere, each once. Raises QueryTooLargeError."""
        new = set(wanted) - self._opened
        self._opened |= new
        self._chunk_bytes_left -= sum(one.size for one in new)
        if self._chunk_bytes_left < 0:
            raise QueryTooLargeError(
                "the chunks that this query reads have more bytes than querier.query_chunk_bytes_max: ask for less time"
            )

    def files(self, wanted: Sequence[Wanted], *, fetch: bool) -> dict[str, Path]:
        """URL -> its copy on the local disk, of those that have one, until `let_go` or the end. fetch: make copies."""
        new = [one for one in wanted if one.url not in self._held]
        self._held |= self._copies.hold(new, fetch=fetch, check=self.check)
        return {one.url: self._copies.path(one) for one in wanted if one.url in self._held}

    def let_go(self, urls: Iterable[str]) -> None:
        """Of the copies of what was read: others may need their room."""
        held = self._held.intersection(urls)
        self._held -= held
        self._copies.release(held)

    def reach_store(self, *, again: bool = False) -> None:
        """Before what is not copied is read. again: it has just failed. Raises StoreUnavailableError: it is away."""
        self._copies.reach.check(fresh_s=0.0 if again else FRESH_S)

    def content(self, wanted: Wanted) -> bytes:
        """A whole object. Raises StoreUnavailableError, also where there is none."""
        return self._copies.content(wanted)

    @property
    def seconds_left(self) -> float:
        """Until the query's time is over."""
        return self._deadline_s - time.monotonic()

    def check(self) -> None:
        """Raises QueryTimeoutError when the query's time is over: call it between steps."""
        if self._stopped.is_set() or time.monotonic() > self._deadline_s:
            raise self._timeout()

    def stop(self) -> None:
        """End the statement under way; it raises QueryTimeoutError in its thread."""
        if not self._stopped.is_set():
            self._stopped.set()
            threading.Thread(target=self._interrupt, name="stop", daemon=True).start()

    def _interrupt(self) -> None:
        """Again and again: DuckDB forgets an interruption that comes just before a statement begins."""
        while not self._closed.is_set():
            with suppress(duckdb.ConnectionException):  # it has just ended, and is closed
                self._cursor.interrupt()
            self._closed.wait(INTERRUPTED_AGAIN_S)

    def close(self) -> None:
        """Free the cursor and the copies."""
        self._closed.set()
        self._cursor.close()
        self._copies.release(self._held)

    @staticmethod
    def _timeout() -> QueryTimeoutError:
        return QueryTimeoutError(TIMEOUT)


class _Way(NamedTuple):
    """What the questions of a lane go through. chunk_bytes_max: of the objects that each may open."""

    threads: ThreadPoolExecutor
    connection: duckdb.DuckDBPyConnection
    chunk_bytes_max: int


class Engine:
    """The process's DuckDBs, and the threads that use them: so many a lane, further questions wait.

    What is short and asked by people who wait has threads that go first where the CPU is scarce, and a DuckDB that
    works in them alone: one row group shared among threads costs half as much again, and another's thread that stands
    back would be waited for.
    """

    def __init__(
        self, querier: QuerierSettings, store: StoreSettings, release_memory: Callable[[], None] = lambda: None
    ) -> None:
        """Opens the engine in memory; it spills to `<data_dir>/spill`. Raises duckdb.Error if it cannot be set up.

        release_memory: gives back what is free of much memory, after questions.
        """
        self._timeout_s = querier.query_timeout_s
        self._release_memory = release_memory
        (querier.data_dir / "spill").mkdir(parents=True, exist_ok=True)
        threads = ThreadPoolExecutor(querier.queries_max, "query", stand_back, (querier.niceness,))
        # The engine's own threads inherit how far the one that starts them stands back
        self._connection = threads.submit(
            _opened, querier, store, threads=querier.threads, bytes_max=querier.memory_bytes_max
        ).result()
        threads.submit(self._connection.execute, "SELECT count(*) FROM range(1000000)").result()
        short = ThreadPoolExecutor(querier.short_queries_max, "short", stand_back, (querier.short_niceness,))
        alone = partial(_opened, querier, store, threads=1)
        self._ways = {
            Lane.TRACE: _Way(
                ThreadPoolExecutor(querier.traces_max, "trace"),
                alone(bytes_max=querier.traces_memory_bytes_max),
                querier.query_chunk_bytes_max,
            ),
            Lane.SHORT: _Way(short, alone(bytes_max=querier.short_memory_bytes_max), querier.short_chunk_bytes_max),
            Lane.LONG: _Way(threads, self._connection, querier.query_chunk_bytes_max),
        }
        reach, copied_from = Reach(store, querier.store_timeout_s), ObjectStore(within(store, querier.store_timeout_s))
        self._copies = Copies(querier.data_dir / "chunks", copied_from, querier.copies_bytes_max, reach)

    async def run(self, work: Callable[[Session], T], *, lane: Lane = Lane.LONG, watch: Watch | None = None) -> T:
        """`work` in a thread of its lane; watch: looks on.

        Raises QueryTimeoutError when it takes, waiting included, longer than the setting; what `work` raises, such as
        QueryTooLargeError for one that is not short.
        """
        way = self._ways[lane]
        deadline_s = time.monotonic() + self._timeout_s
        session: list[Session] = []

        def job() -> T:
            current = Session(
                way.connection,
                deadline_s,
                self._copies,
                chunk_bytes_max=way.chunk_bytes_max,
                release_memory=self._release_memory,
                watch=watch,
            )
            session.append(current)
            try:
                current.check()
                return work(current)
            finally:
                current.close()
                if lane is Lane.LONG:
                    self._release_memory()

        future = asyncio.get_running_loop().run_in_executor(way.threads, job)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except (TimeoutError, asyncio.CancelledError) as exc:
            future.add_done_callback(_heard)
            if session:
                session[0].stop()
            else:
                future.cancel()
            if isinstance(exc, asyncio.CancelledError):
                raise
            raise QueryTimeoutError(TIMEOUT) from exc

    def regex_error(self, pattern: str) -> str | None:
        """What is wrong with a regular expression, None where nothing is. Below 1 ms."""
        cursor = self._connection.cursor()
        try:
            cursor.execute("SELECT regexp_full_match('', ?, 's')", [pattern])
        except duckdb.Error as exc:
            return str(exc).removeprefix("Invalid Input Error: ")
        finally:
            cursor.close()
        return None

    def reach_store(self) -> None:
        """Before something else reads much of it; may block. Raises StoreUnavailableError where it is away."""
        self._copies.reach.check()

    def nbytes(self) -> int:
        """Memory that the engine holds, its cache of chunks included."""
        held = 0
        for way in self._ways.values():
            cursor = way.connection.cursor()
            (some,) = cursor.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone() or (0,)
            cursor.close()
            held += int(some or 0)
        return held

    def copied_bytes(self) -> int:
        """What copies of chunks take on the local disk."""
        return self._copies.nbytes

    def close(self) -> None:
        """End what runs and free the engine."""
        for way in self._ways.values():
            way.threads.shutdown(wait=True, cancel_futures=True)
        self._copies.close()
        for way in self._ways.values():
            way.connection.close()


def _opened(querier: QuerierSettings, store: StoreSettings, *, threads: int, bytes_max: int) -> Any:
    """A DuckDB in memory that reads the store's chunks. threads: 0 for one a core."""
    config: dict[str, Any] = {
        "memory_limit": f"{bytes_max >> 10}KiB",
        "temp_directory": str(querier.data_dir / "spill"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads:
        config["threads"] = threads
    connection = duckdb.connect(config=config)
    load_httpfs(connection)
    # A chunk never changes under its name: its bytes need not be looked at again. Parsed footers are not kept: each
    # takes up to 2 MB, of which the engine counts a seventh, and is parsed in up to 1.2 ms
    for setting in ("enable_http_metadata_cache = true", "validate_external_file_cache = 'NO_VALIDATION'"):
        connection.execute(f"SET GLOBAL {setting}")
    wait_within(connection, querier, store)
    create_secret(connection, store)
    connection.create_function("array_elements", array_elements, ["BLOB", "VARCHAR"], "VARCHAR[]")
    special = FunctionNullHandling.SPECIAL  # it may answer null
    connection.create_function("int_power", int_power, ["BIGINT", "BIGINT"], "BIGINT", null_handling=special)
    return connection


def stand_back(niceness: int) -> None:
    """Give this thread, and those that it starts, less of a scarce CPU. Where threads have no such rank of their own,
    nothing: it would be the process's.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + niceness)


def _heard(future: asyncio.Future[Any]) -> None:
    """The outcome of an abandoned query is of no interest."""
    if not future.cancelled():
        future.exception()


def array_elements(any_value: bytes, field: str) -> list[str]:
    """In SQL: the elements of a rare attribute's array, as texts, where all set this field of AnyValue; else none."""
    try:
        elements = list(AnyValue.FromString(any_value).array_value.values)
    except DecodeError:
        return []
    if any(element.WhichOneof("value") != field for element in elements):
        return []  # an array of several types: it has no column of its own either, and matches nothing
    found = [getattr(element, field) for element in elements]
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in found]


def quoted(identifier: str) -> str:
    """An identifier for SQL, whatever characters it has. Braces are doubled since Session.sql formats the text."""
    return '"' + identifier.replace('"', '""').replace("{", "{{").replace("}", "}}") + '"'


def load_httpfs(connection: duckdb.DuckDBPyConnection) -> None:
    """The wheel carries the signed extension of exactly its version; nothing is downloaded."""
    folder = Path(next(iter(duckdb_extension_httpfs.__path__))) / "extensions" / f"v{duckdb.__version__}"
    path = str(folder / "httpfs.duckdb_extension").replace("'", "''")
    connection.execute(f"LOAD '{path}'")


def wait_within(connection: duckdb.DuckDBPyConnection, querier: QuerierSettings, store: StoreSettings) -> None:
    """Each of its requests to the store takes so long at most, and is tried four times. GLOBAL: for its cursors too."""
    connection.execute(f"SET GLOBAL http_timeout = {max(1, int(within(store, querier.store_timeout_s).get_timeout_s))}")


def create_secret(connection: duckdb.DuckDBPyConnection, store: StoreSettings) -> None:
    """The store's keys, for `s3://` URLs."""
    url = urlsplit(store.endpoint)
    values: Mapping[str, str] = {
        "KEY_ID": store.access_key,
        "SECRET": store.secret_key.get_secret_value(),
        "ENDPOINT": url.netloc + url.path.rstrip("/"),
        "REGION": store.region,
        "URL_STYLE": "path",
    }
    escaped = ", ".join(f"{name} '{value.replace(chr(39), chr(39) * 2)}'" for name, value in values.items())
    use_ssl = "true" if url.scheme == "https" else "false"
    if url.scheme == "https":
        # For all its connections: each query has one of its own
        authority = store.ca_path or ssl.get_default_verify_paths().cafile
        if authority is None:
            raise SettingsError(
                "store.ca_path is empty, store.endpoint is https, and this system has no list of authorities"
            )
        connection.execute("SET GLOBAL enable_server_cert_verification = true")
        connection.execute(f"SET GLOBAL ca_cert_file = '{authority.replace(chr(39), chr(39) * 2)}'")
    connection.execute(f"CREATE OR REPLACE SECRET chunks (TYPE s3, {escaped}, USE_SSL {use_ssl})")
