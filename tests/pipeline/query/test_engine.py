"""The engine ends what takes too long, says what is too large, and names chunks that cannot be read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pytest

from pipeline.query.chunks import ChunkReader, refs_of
from pipeline.query.copies import Wanted
from pipeline.query.engine import Engine, Session, quoted
from pipeline.store.objects import ObjectStore
from tests.pipeline.query.world import OneSpan, rows, stored
from tests.pipeline.store.faulty import DROPPED, REFUSED, faulty
from topics.errors import QueryTimeoutError, QueryTooLargeError, StoreUnavailableError
from topics.settings import KafkaSettings, QuerierSettings, Settings, StoreSettings

T = TypeVar("T")


def run(work: Callable[[Session], T], tmp_path: Path, store: StoreSettings | None = None, **querier: float) -> T:
    async def main() -> T:
        engine = Engine(QuerierSettings(data_dir=tmp_path, threads=1, **querier), store or StoreSettings())  # type: ignore[arg-type]
        try:
            return await engine.run(work)
        finally:
            engine.close()

    return asyncio.run(main())


def test_values_are_bound_and_names_quoted(tmp_path: Path) -> None:
    odd = 'a"b{c}; --'
    table = pa.table({odd: ["x'; DROP TABLE t", "y"]})

    found = run(
        lambda session: session.sql(f"SELECT {quoted(odd)} AS v FROM {{t}} WHERE {quoted(odd)} = ?", ["y"], t=table),
        tmp_path,
    )

    assert found.column("v").to_pylist() == ["y"]


def test_what_the_engine_is_told_holds_in_each_session(tmp_path: Path) -> None:
    """A plain SET holds in one connection alone, and each session has another one."""
    told = {
        "http_timeout": 3,
        "enable_http_metadata_cache": True,
        "validate_external_file_cache": "NO_VALIDATION",
        "parquet_metadata_cache": False,
    }
    text = ", ".join(f"current_setting('{name}') AS {name}" for name in told)

    found = run(lambda session: session.sql(f"SELECT {text}"), tmp_path, store_timeout_s=3.0)

    assert found.to_pylist() == [told]


def test_a_query_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(QueryTimeoutError, match=r"querier\.query_timeout_s"):
        run(
            lambda session: session.sql("SELECT sum(a.range * b.range % 7) FROM range(10000000) a, range(10000000) b"),
            tmp_path,
            query_timeout_s=0.3,
        )


def test_a_query_that_is_stopped_just_before_its_statement_begins_is_ended(tmp_path: Path) -> None:
    def work(session: Session) -> None:
        session.check, check = (lambda: None), session.check  # type: ignore[method-assign]
        session.stop()
        with pytest.raises(QueryTimeoutError):
            check()
        session.sql("SELECT sum(a.range * b.range % 7) FROM range(60000) a, range(60000) b")

    with pytest.raises(QueryTimeoutError):
        run(work, tmp_path)


def test_waiting_for_its_turn_counts(tmp_path: Path) -> None:
    release = threading.Event()

    async def main() -> None:
        engine = Engine(
            QuerierSettings(data_dir=tmp_path, threads=1, queries_max=1, query_timeout_s=0.2), StoreSettings()
        )
        first = asyncio.create_task(engine.run(lambda _session: release.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(QueryTimeoutError):
            await engine.run(lambda _session: None)
        release.set()
        with pytest.raises(QueryTimeoutError):
            await first
        engine.close()

    asyncio.run(main())


def test_a_query_opens_no_more_bytes_of_chunks_than_allowed_each_counted_once(tmp_path: Path) -> None:
    one, other = (Wanted("bucket", name, (1 << 20) - 1) for name in ("a.parquet", "b.parquet"))

    def work(session: Session) -> None:
        session.open([one])
        session.open([one, Wanted("bucket", "c.parquet", 1)])
        with pytest.raises(QueryTooLargeError, match=r"querier\.query_chunk_bytes_max"):
            session.open([one, other])

    run(work, tmp_path, query_chunk_bytes_max=1 << 20)


@pytest.mark.parametrize("later", range(6))
def test_a_query_cancelled_as_its_answer_comes_is_cancelled(tmp_path: Path, later: int) -> None:
    async def main() -> None:
        engine = Engine(QuerierSettings(data_dir=tmp_path, threads=1), StoreSettings())
        answered = threading.Event()
        asked = asyncio.create_task(engine.run(lambda _session: answered.set()))
        await asyncio.sleep(0)
        assert answered.wait(10)
        for _ in range(later):
            await asyncio.sleep(0)

        if asked.cancel():
            with pytest.raises(asyncio.CancelledError):
                await asked
        engine.close()

    asyncio.run(main())


def test_a_query_that_needs_too_much_memory_says_so(tmp_path: Path) -> None:
    def work(session: Session) -> pa.Table:
        session._cursor.execute("SET temp_directory = ''")
        return session.sql("SELECT list(range) FROM range(100000000)")

    with pytest.raises(QueryTooLargeError, match=r"querier\.memory_bytes_max"):
        run(work, tmp_path, memory_bytes_max=64 << 20)


def test_a_file_that_is_gone_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError) as told:
        run(lambda session: session.sql("SELECT * FROM read_parquet(?)", [str(tmp_path / "gone.parquet")]), tmp_path)

    assert "gone.parquet" in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_without_a_store_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="reading chunks"):
        run(
            lambda session: session.sql("SELECT * FROM read_parquet(?)", ["s3://b-b/x.parquet"]),
            tmp_path,
            StoreSettings(endpoint="http://127.0.0.1:9"),
        )


@pytest.mark.integration
@pytest.mark.parametrize("fault", [DROPPED, REFUSED])
def test_a_chunk_whose_requests_fail_for_a_moment_is_asked_for_again(
    store_settings: StoreSettings, tmp_path: Path, fault: str
) -> None:
    settings = Settings(store=store_settings, kafka=KafkaSettings(partitions=1))
    manifest = stored(settings, 0, 0, 0, rows({0: [OneSpan(1, 1)]}))
    refs, reasons = refs_of(manifest.chunks, {0: 1}), list[str]()

    def work(session: Session) -> pa.Table:
        reader = ChunkReader(session, reasons)
        return reader.read(refs, lambda urls: ("SELECT span_id FROM read_parquet(?)", [urls]), fetch=False)

    with faulty(store_settings) as (proxy, behind):
        proxy.start_over(lambda number, _method, path: fault if "/chunks/" in path and number < 8 else "")
        found = run(work, tmp_path, behind)

    assert (found.num_rows, reasons) == (1, [])


@pytest.mark.integration
@pytest.mark.parametrize("how", ["gone", "broken"])
def test_a_chunk_that_cannot_be_read_is_left_out_and_named(
    store_settings: StoreSettings, tmp_path: Path, how: str
) -> None:
    settings = Settings(store=store_settings, kafka=KafkaSettings(partitions=1))
    manifests = [stored(settings, 0, n, n, rows({n: [OneSpan(1, n + 1)]})) for n in range(3)]
    refs = refs_of([chunk for each in manifests for chunk in each.chunks], {0: 3})
    bad, store = refs[1].entry, ObjectStore(store_settings)
    if how == "gone":
        store.remove(bad.bucket, bad.name)
    else:
        store.put(bad.bucket, bad.name, b"no parquet at all", "application/octet-stream")
    reasons: list[str] = []

    def work(session: Session) -> pa.Table:
        reader = ChunkReader(session, reasons)
        return reader.read(refs, lambda urls: ("SELECT span_id FROM read_parquet(?) ORDER BY span_id", [urls]))

    found = run(work, tmp_path, store_settings)

    assert found.num_rows == 2
    assert len(reasons) == 1
    assert bad.name in reasons[0]
