"""SQL gives the same rows wherever spans stand, and reads no chunk but those of the question."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pytest

from pipeline.query.chunks import refs_of
from pipeline.query.sandbox import BASE_COLUMNS, TenantRows, sandbox
from pipeline.query.snapshot import Snapshot
from pipeline.query.statement import statement_of
from pipeline.query.tenant_sql import TenantSql
from pipeline.store.objects import ObjectStore
from tests.pipeline.query.cuts import HOUR_NS, TENANTS, Asked, ask, everywhere
from tests.pipeline.query.test_answers import SHOP
from tests.pipeline.query.world import T0, OneSpan, rows, span_id, stored
from topics.errors import StoreUnavailableError
from topics.settings import Settings

pytestmark = pytest.mark.integration
SHOP_ONCE = [*SHOP[:2], SHOP[2][1:]]  # a copy counts until the worker has reached and dropped it
RANGE_NS = (T0, T0 + HOUR_NS)


async def rows_of(asked: Asked, sql: str) -> list[tuple[object, ...]]:
    settings = asked.settings
    engine = TenantSql(asked.stored, asked.snapshots, settings.querier, settings.store, asked.engine.reach_store)
    try:
        answer = await engine.ask(TENANTS, statement_of(sql), RANGE_NS, lambda: None)
        assert answer.reasons == []
        found = [tuple(row.values()) async for batch in answer.batches for row in batch.to_pylist()]
        answer.close()
        return found
    finally:
        engine.close()


@pytest.mark.parametrize("how", ["stored", "mixed"])
def test_spans_parents_and_traces_are_the_same_wherever_they_stand(world: Settings, how: str) -> None:
    async def question(asked: Asked) -> None:
        spans = await rows_of(
            asked, "SELECT span_id, parent_span_id, name, service, is_root FROM spans ORDER BY span_id"
        )
        assert spans == [
            (span_id(1).hex(), None, "GET /cart", "shop", True),
            (span_id(2).hex(), span_id(1).hex(), "SELECT", "db", False),
            (span_id(3).hex(), None, "GET /cart", "shop", True),
            (span_id(4).hex(), span_id(2).hex(), "row", "db", False),
        ]
        traces = await rows_of(asked, "SELECT spans, errors, root_service, services FROM traces ORDER BY start_unix_ns")
        assert traces == [(3, 1, "shop", ["db", "shop"]), (1, 0, "shop", ["shop"])]
        assert await rows_of(asked, "SELECT count(*) FROM spans WHERE service = 'db'") == [(2,)]

    ask(world, SHOP_ONCE, everywhere(3, how), question)


def test_a_sandbox_reads_and_writes_no_other_chunk_whatever_statement_it_runs(world: Settings) -> None:
    manifests = [stored(world, 0, n, n, rows({n: [OneSpan(1, n + 1)]})) for n in range(2)]
    own, other = (ref.url for ref in refs_of([one for each in manifests for one in each.chunks], {0: 2}))
    live = Snapshot.no_rows(BASE_COLUMNS)

    inside = sandbox([TenantRows("a", [own], live)], RANGE_NS, world.querier, world.store, parents=True)

    assert inside.execute("SELECT count(*) FROM spans").fetchone() == (1,)
    assert inside.execute(f"SELECT count(*) FROM read_parquet('{own}')").fetchone() == (1,)
    for refused in (
        f"SELECT * FROM read_parquet('{other}')",
        f"SELECT * FROM read_parquet(['{own}', '{other}'])",
        f"SELECT * FROM glob('{other.rpartition('/')[0]}/*')",
        f"COPY (SELECT 1) TO '{other}'",
        "ATTACH '/tmp/spanstream-escape.db'",
        "SET allowed_paths = ['/etc/passwd']",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "INSTALL json",
    ):
        with pytest.raises(duckdb.Error):
            inside.execute(refused)
    inside.close()


def flipped(content: bytes) -> bytes:
    """All but its ends."""
    return content[:8] + bytes(255 - byte for byte in content[8:-8]) + content[-8:]


def zeroed_pages(content: bytes) -> bytes:
    """The footer is whole."""
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:4] + bytes(pages - 4) + content[pages:]


@pytest.mark.parametrize("damage", [lambda _: b"garbage", lambda content: content[:-9], flipped, zeroed_pages])
def test_a_damaged_chunk_is_not_taken_for_wrong_sql(world: Settings, damage: Callable[[bytes], bytes]) -> None:
    async def question(asked: Asked) -> None:
        store = ObjectStore(asked.settings.store)
        for entry in (entry for manifest in asked.stored.manifests for entry in manifest.chunks):
            content = store.get(entry.bucket, entry.name)
            assert content is not None
            store.put(entry.bucket, entry.name, damage(content), "application/vnd.apache.parquet")
        with pytest.raises(StoreUnavailableError, match="reading chunks"):
            await rows_of(asked, "SELECT * FROM spans")

    ask(world, SHOP_ONCE, everywhere(3, "stored"), question)
