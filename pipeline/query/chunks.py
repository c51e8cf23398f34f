"""Reading chunks: which ones a question opens, and what happens when one cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.query.engine import Session
from pipeline.store.manifest import ChunkEntry
from topics.errors import StoreUnavailableError


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
        return f"s3://{self.entry.bucket}/{self.entry.name}"

    @property
    def start_bound_unix_ns(self) -> int:
        """No span in it starts later, outliers aside."""
        return self.entry.start_max_unix_ns


def refs_of(entries: Iterable[ChunkEntry], horizons: Mapping[int, int]) -> list[ChunkRef]:
    """Those of the chunks that lie below H of their partition, if it is one of `horizons`."""
    refs = []
    for entry in entries:
        *_, partition, name = entry.name.split("/")
        first, last, _token = name.split("-", 2)
        ref = ChunkRef(entry, int(partition), int(first), int(last))
        if ref.last < horizons.get(ref.partition, 0):
            refs.append(ref)
    return refs


class ChunkReader:
    """Runs statements over a list of chunks. One that cannot be read is left out and named in `reasons`."""

    def __init__(self, session: Session, reasons: list[str]) -> None:
        self._session = session
        self._reasons = reasons
        self._broken: set[str] = set()

    def read(
        self,
        refs: Sequence[ChunkRef],
        statement: Callable[[list[str]], tuple[str, list[Any]]],
        **tables: pa.Table,
    ) -> pa.Table:
        """statement: from the chunks' URLs (possibly none) to SQL and its values; tables as in Session.sql."""
        urls = [ref.url for ref in refs if ref.url not in self._broken]
        text, values = statement(urls)
        try:
            return self._session.sql(text, values, **tables)
        except StoreUnavailableError as exc:
            broken = self._find_broken(urls)
            if not broken:
                raise
            self._broken |= broken.keys()
            self._reasons += [f"chunk {url} cannot be read: {reason}" for url, reason in broken.items()]
            if len(broken) == len(urls) and "404" not in str(exc):
                raise
        return self.read(refs, statement, **tables)

    def _find_broken(self, urls: Sequence[str]) -> dict[str, str]:
        broken = {}
        for url in urls:
            try:
                self._session.sql("SELECT max(span_id) FROM read_parquet(?)", [url])
            except StoreUnavailableError as exc:
                broken[url] = str(exc)[:200]
        return broken
