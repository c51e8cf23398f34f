"""What a statement gives for each chunk is kept for that chunk, also where another one cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.chunks import CHUNK_NUMBER, ChunkReader, ChunkRef, rows_by_chunk
from pipeline.query.copies import Wanted
from pipeline.query.engine import Session
from pipeline.query.executor import Asked
from pipeline.store.manifest import ChunkEntry
from tests.pipeline.query.test_engine import run

LIVE = pa.table({"v": pa.array([], pa.int64())})


def ref(number: int) -> ChunkRef:
    entry = ChunkEntry(
        tenant="t",
        bucket="b",
        name=f"chunk-{number}",
        traces_name="",
        filter_name="",
        bytes=1,
        spans=1,
        traces=1,
        start_min_unix_ns=0,
        start_max_unix_ns=0,
        end_max_unix_ns=0,
    )
    return ChunkRef(entry, 0, number, number)


def statement(urls: list[str]) -> tuple[str, list[Any]]:
    return f"SELECT v, {CHUNK_NUMBER} FROM ({rows_by_chunk(urls)})", [urls] if urls else []


def test_each_chunk_keeps_its_own_rows_beside_one_that_cannot_be_read(tmp_path: Path) -> None:
    refs = [ref(number) for number in range(4)]
    files = {one.url: tmp_path / one.entry.name for one in refs}
    for number, one in enumerate(refs):
        rows = {"v": pa.array([number] * (number + 1), pa.int64()), "trace_id": [b"x"] * (number + 1)}
        pq.write_table(pa.table(rows), files[one.url])
    files[refs[1].url].write_bytes(b"no parquet")
    asked: list[list[ChunkRef]] = []

    def work(session: Session) -> list[list[list[int]]]:
        session.files = lambda wanted, fetch: {one.url: files[one.url] for one in wanted}  # type: ignore[method-assign]
        cache, reasons = ChunkCache(1 << 20), list[str]()
        reader = ChunkReader(session, reasons)

        def values(of: list[ChunkRef]) -> list[list[int]]:
            found = cache.tables(of, Asked(statement, LIVE), reader, asked.append)
            return [one.column("v").to_pylist() for one in found]

        found = [values(refs), values([refs[3], refs[0]])]
        assert len(reasons) == 1
        assert refs[1].url in reasons[0]
        return found

    assert run(work, tmp_path) == [[[0], [2, 2, 2], [3, 3, 3, 3]], [[3, 3, 3, 3], [0]]]
    assert asked == [refs, []]
    assert Wanted("b", "chunk-0", 1) == refs[0].wanted
