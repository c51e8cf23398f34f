"""Reading chunks: which ones a question opens, and what happens when one cannot be read."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import telemetry
from pipeline.query.copies import Wanted
from pipeline.query.engine import Session, quoted
from pipeline.spans import schema
from pipeline.store.manifest import MORE_KEYS_MAX, ChunkEntry
from topics.errors import OvertakenError, StoreUnavailableError

ForChunks = Callable[[list[str]], tuple[str, list[Any]]]  # from chunks' URLs (possibly none) to SQL and its values
CHUNK_NUMBER = "chunk_number"
TRACE_BYTES = 64  # of a trace in the object with a row a trace, about
OF_STORE = ("HTTP Error", "IO Error")  # in the engine's sentence; other errors are about what it has read
GONE = re.compile(r"\b404\b")  # in the engine's sentence, and in that of a whole object
WHY_CHARACTERS = 200
TRIES, AGAIN_S_MAX = 3, 0.2
# SQL over rows of chunks. Columns are matched by name, since each chunk has its own
SERVICE_SQL = f"coalesce({quoted(schema.SERVICE_COLUMN)}, resource_more['service.name'].string)"
ROOT = "parent_row IS NULL AND coalesce(octet_length(outside_parent_span_id), 0) = 0"
# A negative duration is an end before its start: such a span is where it starts. Values: end, start, start
IN_RANGE = (
    "start_unix_ns <= ? AND (start_unix_ns >= ? OR (duration_ns > 0 AND start_unix_ns::HUGEINT + duration_ns >= ?))"
)


def rows_of(urls: Sequence[str], *, row_numbers: bool = False) -> str:
    """SQL for all rows: of the chunks, whose list is the first value of the statement, and of the table `live`.

    row_numbers: with the column `file_row_number`, null of live rows.
    """
    return _rows("*", urls, row_numbers=row_numbers)


def rows_by_chunk(urls: Sequence[str], *, row_numbers: bool = False) -> str:
    """The same with the column CHUNK_NUMBER, which `live` has: the place of a row's chunk in the list.

    Names are slower to group by.
    """
    return _rows(f"*, file_index AS {CHUNK_NUMBER}", urls, row_numbers=row_numbers)


def _rows(selected: str, urls: Sequence[str], *, row_numbers: bool) -> str:
    numbers, none = (", file_row_number = true", ", NULL::BIGINT AS file_row_number") if row_numbers else ("", "")
    chunks = f"SELECT {selected} FROM read_parquet(?, union_by_name = true{numbers}) UNION ALL BY NAME "
    return (chunks if urls else "") + f"SELECT *{none} FROM {{live}}"


def numbered(rows: pa.Table, number: int) -> pa.Table:
    """Live rows with the column CHUNK_NUMBER."""
    return rows.append_column(CHUNK_NUMBER, pa.repeat(pa.scalar(number, pa.uint64()), rows.num_rows))


class GoneChunk(str):
    """A reason: a chunk is not there."""

    of_partition: int

    def __new__(cls, reason: str, partition: int) -> GoneChunk:
        """The reason in words, and the partition."""
        one = super().__new__(cls, reason)
        one.of_partition = partition
        return one


class StoreAway(str):
    """A reason: the store does not answer."""


def check_found(reasons: Iterable[str], *, found: bool) -> None:
    """Raises StoreUnavailableError for an answer without anything in it, where the store does not answer."""
    away = next((reason for reason in reasons if isinstance(reason, StoreAway)), None)
    if away is not None and not found:
        raise StoreUnavailableError(away)


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A chunk, and the offsets [first, last] of its partition that its manifest names."""

    entry: ChunkEntry
    partition: int
    first: int
    last: int

    @property
    def url(self) -> str:
        """Where the engine reads it."""
        return self.wanted.url

    @property
    def wanted(self) -> Wanted:
        """The chunk, to be copied."""
        return Wanted(self.entry.bucket, self.entry.name, self.entry.bytes)

    @property
    def traces_wanted(self) -> Wanted:
        """The object with a row a trace, to be copied."""
        return Wanted(self.entry.bucket, self.entry.traces_name, self.entry.traces * TRACE_BYTES)

    def lies_within(self, range_ns: tuple[int, int] | None) -> bool:
        """Whether all its spans start in the range, ends included; None: of all times."""
        entry = self.entry
        return range_ns is None or (
            not entry.outliers and range_ns[0] <= entry.start_min_unix_ns and entry.start_max_unix_ns <= range_ns[1]
        )

    @property
    def start_bound_unix_ns(self) -> int:
        """No span in it starts later, outliers aside."""
        return self.entry.start_max_unix_ns


def by_cover(refs: Iterable[ChunkRef], range_ns: tuple[int, int] | None) -> tuple[list[ChunkRef], list[ChunkRef]]:
    """Those of which all spans start in the range, as ChunkRef.lies_within says, and the others."""
    covered, others = list[ChunkRef](), list[ChunkRef]()
    for ref in refs:
        (covered if ref.lies_within(range_ns) else others).append(ref)
    return covered, others


def told_damage(refs: Iterable[ChunkRef]) -> list[str]:
    """Which of these chunks are damaged, in sentences: what is read of one may be wrong."""
    return [f"chunk {ref.url} is damaged: what comes from it may be wrong" for ref in refs if ref.entry.damaged]


def refs_of(entries: Iterable[ChunkEntry], horizons: Mapping[int, int]) -> list[ChunkRef]:
    """Those of the chunks that lie below H of their partition, if it is one of `horizons`.

    Raises OvertakenError for one that was merged from what lies on both sides of H.
    """
    refs = []
    for entry in entries:
        *_, partition, name = entry.name.split("/")
        first, last, _token = name.split("-", 2)
        ref = ChunkRef(entry, int(partition), int(first), int(last))
        horizon = horizons.get(ref.partition, 0)
        if ref.last < horizon:
            refs.append(ref)
        elif ref.first < horizon:
            raise OvertakenError("chunks were merged while they were asked for: ask again")
    return refs


def all_more_keys(entry: ChunkEntry) -> tuple[str, ...] | None:
    """The keys of a chunk's map columns; None where its entry may not list all."""
    return None if len(entry.more_keys) >= MORE_KEYS_MAX else entry.more_keys


@dataclass(frozen=True, slots=True)
class Present:
    """Which columns exist in some chunks and live segments: what exists nowhere is not asked for."""

    columns: frozenset[str]
    more_keys: frozenset[str]
    more_unknown: bool

    @classmethod
    def of(cls, refs: Sequence[ChunkRef], live_columns: Iterable[str]) -> Present:
        """Of these chunks, as their entries say, and of segments that have these columns."""
        live = frozenset(live_columns)
        return cls(
            columns=live.union(*(ref.entry.attributes for ref in refs)),
            more_keys=frozenset(key for ref in refs for key in ref.entry.more_keys),
            more_unknown=any(all_more_keys(ref.entry) is None for ref in refs)
            or any(schema.more_column(scope) in live for scope in schema.SCOPES),
        )

    def has(self, column: str) -> bool:
        """Whether an attribute's column may have a value."""
        return column in self.columns

    def has_more_of(self, scope: str) -> bool:
        """Whether the map column of a scope may have any key."""
        return self.more_unknown or any(key.startswith(f"{scope}.") for key in self.more_keys)

    def has_more(self, scope: str, key: str) -> bool:
        """Whether the map column of a scope may have a key."""
        return self.more_unknown or f"{scope}.{key}" in self.more_keys


class ChunkReader:
    """Runs statements over a list of chunks. One that cannot be read is left out and named in `reasons`."""

    def __init__(self, session: Session, reasons: list[str]) -> None:
        self.session = session
        self._reasons = reasons
        self._broken: set[str] = set()  # URLs
        self._urls: dict[str, str] = {}  # of copies

    def read(
        self,
        refs: Sequence[ChunkRef],
        statement: ForChunks,
        *,
        traces: bool = False,
        fetch: bool = True,
        others_read: bool = False,
        tries: int = TRIES,
        **tables: pa.Table,
    ) -> pa.Table:
        """tables: as in Session.sql; tries: of what fails on its way to the store or back.

        traces: the objects with a row a trace are read in the place of the chunks. fetch: so much is read of them that
        they are copied whole first. others_read: other chunks could be read, so that it is not the store that is away
        where none of these can. Where the store does not answer, what is not copied is left out.
        """
        wanted = [ref.traces_wanted if traces else ref.wanted for ref in refs]
        self.session.open(wanted)
        files = self.session.files(wanted, fetch=fetch)
        self._urls |= {str(path): url for url, path in files.items()}
        named = [str(files.get(one.url, one.url)) for one in wanted]
        urls = [url for url in named if self.url_of(url) not in self._broken]
        if self._leaves_store_out(urls):
            urls = [url for url in urls if url in self._urls]
        text, values = statement(urls)
        telemetry.CHUNKS_OPENED.inc(len(urls))
        try:
            found = self.session.sql(text, values, **tables)
            if self.session.watch is not None:
                self.session.watch.read(refs, len(files))
            return found
        except StoreUnavailableError:
            if not self._leaves_store_out(urls, again=True):
                broken = self._find_broken(urls, statement, tables)
                of_store = [url for url, why in broken.items() if self._may_be_of_store(url, why)]
                on_its_way = bool(of_store) or not broken
                if on_its_way and tries > 1:  # it may go well the next time
                    tries -= 1
                    time.sleep(random.uniform(0, AGAIN_S_MAX))  # noqa: S311
                    broken = {url: why for url, why in broken.items() if url not in of_store}
                elif not broken or (len(of_store) == len(urls) and not others_read):
                    raise
                self._broken.update(map(self.url_of, broken))
                self._reasons += [_why_broken(self.url_of(url), why) for url, why in broken.items()]
        return self.read(refs, statement, traces=traces, fetch=fetch, others_read=others_read, tries=tries, **tables)

    def tell(self, reasons: Iterable[str]) -> None:
        """Why the answer may be wrong; each is told once."""
        self._reasons += [reason for reason in reasons if reason not in self._reasons]

    def url_of(self, filename: str) -> str:
        """The URL of a chunk, of what the column `filename` says."""
        return self._urls.get(filename, filename)

    def can_read(self, url: str) -> bool:
        """Whether what stands there was not found to be unreadable."""
        return url not in self._broken

    def source(self, ref: ChunkRef) -> str | pa.Buffer:
        """A chunk's file, or its bytes. Raises StoreUnavailableError, QueryTooLargeError."""
        self.session.open([ref.wanted])
        path = self.session.files([ref.wanted], fetch=True).get(ref.url)
        if path is not None:
            return str(path)
        self.session.reach_store()
        return pa.py_buffer(self.session.content(ref.wanted))

    def leave_out(self, ref: ChunkRef, reason: str) -> None:
        """It turned out to be unreadable."""
        self._broken.add(ref.url)
        self._reasons.append(_why_broken(ref.url, reason))

    def _leaves_store_out(self, urls: Sequence[str], *, again: bool = False) -> bool:
        """Whether some of these are to be read from the store, which does not answer. They count as unreadable then."""
        stored = [url for url in urls if url not in self._urls]
        if not stored:
            return False
        try:
            self.session.reach_store(again=again)
        except StoreUnavailableError as exc:
            self._broken.update(stored)
            self.tell([StoreAway(f"what is in the store alone is left out: {exc}")])
            return True
        return False

    def _may_be_of_store(self, url: str, why: str) -> bool:
        """Whether all others may fail alike: not where what was read is wrong, nor where one is gone."""
        return url not in self._urls and not _is_gone(why) and any(kind in why for kind in OF_STORE)

    def _find_broken(self, urls: Sequence[str], statement: ForChunks, tables: Mapping[str, pa.Table]) -> dict[str, str]:
        """Those of which the statement cannot read what it needs, with why. A page may be damaged that others do not
        need.
        """
        broken = {}
        for url in urls:
            text, values = statement([url])
            try:
                self.session.sql(text, values, **tables)
            except StoreUnavailableError as exc:
                broken[url] = str(exc)
        return broken


def _why_broken(url: str, why: str) -> str:
    reason = f"chunk {url} cannot be read: {why[:WHY_CHARACTERS]}"
    return GoneChunk(reason, int(url.split("/")[-2])) if _is_gone(why) else reason


def _is_gone(why: str) -> bool:
    return GONE.search(why) is not None
