"""What a statement gives for each chunk is kept for that chunk, also where another one cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.query import executor
from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.chunks import CHUNK_NUMBER, ChunkReader, ChunkRef, numbered, rows_by_chunk
from pipeline.query.copies import Wanted
from pipeline.query.engine import Session
from pipeline.query.executor import Asked, ChunkRows
from pipeline.store.manifest import ChunkEntry
from tests.pipeline.query.test_engine import run

NO_LIVE = numbered(pa.table({"v": pa.array([], pa.int64())}), 0)


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


class Plain:
    """Reads them without the engine."""

    columns = ("v",)

    def of_chunk(self, source: str | pa.Buffer, check: Callable[[], None]) -> pa.Table:
        check()
        return pq.ParquetFile(source).read(columns=list(self.columns))


def no_parquet(file: Path) -> None:
    """Nothing of it can be read."""
    file.write_bytes(b"no parquet")


def damaged_page(file: Path) -> None:
    """Only the column that is asked for cannot be read."""
    values = pq.read_metadata(file).row_group(0).column(0)
    with file.open("r+b") as opened:
        opened.seek(values.dictionary_page_offset)
        opened.write(b"\xff" * values.total_compressed_size)


@pytest.mark.parametrize("damage", [no_parquet, damaged_page])
@pytest.mark.parametrize("plain", [None, Plain()], ids=["by the engine", "plain"])
@pytest.mark.parametrize("spans_at_once", [executor.BATCH_SPANS, 1], ids=["together", "one by one"])
def test_each_chunk_keeps_its_own_rows_beside_one_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    spans_at_once: int,
    damage: Callable[[Path], None],
    plain: Plain | None,
) -> None:
    monkeypatch.setattr(executor, "BATCH_SPANS", spans_at_once)
    refs = [ref(number) for number in range(4)]
    files = {one.url: tmp_path / one.entry.name for one in refs}
    for number, one in enumerate(refs):
        rows = {"v": pa.array([number] * (number + 1), pa.int64()), "trace_id": [b"x"] * (number + 1)}
        pq.write_table(pa.table(rows), files[one.url])
    damage(files[refs[1].url])
    asked: list[list[ChunkRef]] = []

    def work(session: Session) -> list[list[int]]:
        session.files = lambda wanted, fetch: {one.url: files[one.url] for one in wanted}  # type: ignore[method-assign]
        cache, reasons = ChunkCache(1 << 20), list[str]()
        reader = ChunkReader(session, reasons)

        def values(of: list[ChunkRef]) -> list[int]:
            found = cache.rows(of, Asked(ChunkRows(statement, plain), NO_LIVE), reader, opened=asked.append)
            assert found is not None
            return found.column("v").to_pylist()

        found = [values(refs), values([refs[3], refs[0]])]
        assert len(reasons) == 1
        assert refs[1].url in reasons[0]
        return found

    assert run(work, tmp_path) == [[0, 2, 2, 2, 3, 3, 3, 3], [3, 3, 3, 3, 0]]
    assert asked == [refs, []]
    assert Wanted("b", "chunk-0", 1) == refs[0].wanted


def test_live_rows_are_asked_for_once_under_their_name(tmp_path: Path) -> None:
    taken: list[str] = []

    def rows(name: str, *values: int) -> Callable[[], pa.Table]:
        def take() -> pa.Table:
            taken.append(name)
            return pa.table({"v": pa.array(values, pa.int64())})

        return take

    segments = {"live 1": rows("live 1", 1, 1), "live 2": rows("live 2")}

    def work(session: Session) -> list[list[int]]:
        cache, reader = ChunkCache(1 << 20), ChunkReader(session, [])

        def values(live: Mapping[str, Callable[[], pa.Table]]) -> list[int]:
            found = cache.rows([], Asked(ChunkRows(statement), NO_LIVE), reader, live=live)
            return [] if found is None else found.column("v").to_pylist()

        return [values(segments), values(segments | {"live 3": rows("live 3", 3)}), values({})]

    assert run(work, tmp_path) == [[1, 1], [1, 1, 3], []]
    assert taken == ["live 1", "live 2", "live 3"]
