"""Short questions wait for no long ones; which of them are short changes no answer."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.query.questions import Questions
from pipeline.query.turns import Lane
from pipeline.serve.app import make_app
from pipeline.store.manifest import Manifest
from tests.pipeline.query.world import T0, OneSpan, Value, rows, stored, trace_id
from tests.pipeline.serve.api import PARTITIONS, World, settings_of, with_api, with_questions
from topics.partitioner import partition_of
from topics.settings import Settings, StoreSettings

pytestmark = pytest.mark.integration
TENANT = "single-tenant"
RANGE = {"start": str(T0 // 10**9 - 10), "end": str(T0 // 10**9 + 100)}
IN_CHUNK, LIVE = "{ span.in = `chunk` }", "{ span.fresh = true }"


def of_partition(partition: int, count: int) -> list[int]:
    """Some traces that stand on a partition."""
    return [n for n in range(1, 100) if partition_of(trace_id(n), PARTITIONS) == partition][:count]


QUESTIONS = (
    ("/api/search", {"q": IN_CHUNK}),
    ("/api/search", {"q": LIVE}),
    ("/api/search", {"q": "{} | count() > 1"}),
    ("/api/search", {"q": "{} >> {}", "limit": "2"}),
    ("/api/search", {"tags": "in=chunk"}),
    ("/api/metrics/query_range", {"q": "{} | rate() by (span.in)"}),
    ("/api/metrics/query_range", {"q": "{} | compare({ span.fresh = true })"}),
    ("/api/v2/search/tags", {}),
    ("/api/v2/search/tag/span.in/values", {}),
    ("/api/v2/search/tag/span.in/values", {"q": "{ duration > 10ms }"}),
    ("/api/services", {}),
    (f"/api/v2/traces/{trace_id(of_partition(0, 1)[0]).hex()}", {"q": IN_CHUNK}),
)


def two_spans(trace: int, *attributes: tuple[str, Value]) -> list[OneSpan]:
    return [OneSpan(trace, span, span - 1, attributes=attributes) for span in (1, 2)]


def store_chunks(settings: Settings) -> list[Manifest]:
    """Four traces of the first partition, a chunk each."""
    tables = [rows({n: two_spans(trace, ("in", "chunk"))}) for n, trace in enumerate(of_partition(0, 4))]
    return [stored(settings, 0, n, n, table) for n, table in enumerate(tables)]


def prepare(chunks: list[Manifest], world: World) -> None:
    """Two traces of the second partition are live."""
    world.stored.manifests += chunks
    for trace in of_partition(1, 2):
        world.send(two_spans(trace, ("in", "live"), ("fresh", True)))


async def answers(client: httpx.AsyncClient, _world: World) -> list[Any]:
    found = []
    for path, parameters in QUESTIONS:
        answer = await client.get(path, params={**RANGE, **parameters})
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


def test_an_answer_is_the_same_in_either_lane(store_settings: StoreSettings, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, store=store_settings)
    chunks = store_chunks(settings)
    found = []
    for most in (0, chunks[0].chunks[0].bytes, 1 << 40):  # none is short, some are, all are
        querier = settings.querier.model_copy(update={"short_chunk_bytes_max": most})
        asked = settings.model_copy(update={"querier": querier})
        found.append(with_api(asked, partial(prepare, chunks), answers))

    long, either, short = found
    assert long == short
    assert either == short
    assert len(short[0]["traces"]) == 4
    assert len(short[1]["traces"]) == 2


def test_a_short_question_waits_for_no_long_one(store_settings: StoreSettings, tmp_path: Path) -> None:
    async def test(questions: Questions, world: World) -> None:
        places = world.settings.querier.tenant_queries_max
        held = [await questions.under_way.enter([TENANT], "search", "held", Lane.LONG) for _ in range(places)]
        transport = httpx.ASGITransport(make_app(questions, world.settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://querier") as client:
            long = asyncio.create_task(client.get("/api/search", params={**RANGE, "q": IN_CHUNK}))
            async with asyncio.timeout(20):
                while not any(one["state"] == "waiting" for one in questions.under_way.told(None)):
                    await asyncio.sleep(0.01)

                short = await client.get("/api/search", params={**RANGE, "q": LIVE})
                part = await client.get(f"/api/v2/traces/{trace_id(of_partition(1, 1)[0]).hex()}", params={"q": LIVE})

                assert len(short.json()["traces"]) == 2
                assert part.json()["trace"]["resourceSpans"]
                assert not long.done()
                for _, leave in held:
                    leave()
                assert len((await long).json()["traces"]) == 4

    settings = settings_of(tmp_path, store=store_settings, short_chunk_bytes_max=0)
    with_questions(settings, partial(prepare, store_chunks(settings)), test)
