"""The table endpoint of real workers: tables over all of them, live segments, waiting for what is still on its way."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from confluent_kafka import Producer

from agents.commands.local_run import is_ready
from agents.table_endpoint import streamed
from infra.ports import free_port
from pipeline.query.blocks import Block, read_blocks
from tests.pipeline.query.world import OneSpan, otlp, trace_id
from tests.waiting import wait_until
from tests.workers import Workers
from topics import admin, spans_by_trace
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def send(settings: Settings, *spans: OneSpan) -> dict[int, int]:
    """Each span a record of its own; returns the ends of the partitions."""
    producer = Producer(admin.client_config(settings.kafka) | {"enable.idempotence": True})
    for one in spans:
        partition = partition_of(trace_id(one.trace), settings.kafka.partitions)
        producer.produce(full_name(spans_by_trace.TOPIC, settings.kafka), otlp([one]), partition=partition)
    assert producer.flush(10) == 0
    return {partition: end for partition, (_, end) in admin.watermarks(settings, spans_by_trace.TOPIC).items()}


def get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def live(url: str) -> list[Block]:
    """The blocks of a live answer, as a querier reads them."""

    async def read(body: bytes) -> list[Block]:
        reader = asyncio.StreamReader()
        reader.feed_data(body)
        reader.feed_eof()
        return [block async for block in read_blocks(reader)]

    with urllib.request.urlopen(url, timeout=10) as answer:
        return asyncio.run(read(answer.read()))


def span_ids(block: Block) -> list[int]:
    rows = pa.ipc.open_stream(block.ipc).read_all()
    return [int.from_bytes(one) for one in rows.column("span_id").to_pylist()]


@pytest.fixture
def settings(kafka_settings: KafkaSettings, store_settings: StoreSettings) -> Settings:
    found = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(found)
    return found


def test_any_worker_answers_for_all(settings: Settings, tmp_path: Path) -> None:
    workers = Workers(settings, tmp_path)
    try:
        urls = [workers.start(name) for name in ("one", "two")]
        for url in urls:
            wait_until(lambda url=url: is_ready(url), 60, f"{url} is ready")  # type: ignore[misc]

        def shared() -> bool:
            owned = [get(f"{url}/tables/partitions?here=1")["total"] for url in urls]
            return sum(owned) == settings.kafka.partitions and min(owned) > 0

        wait_until(shared, 60, "both own partitions")
        spans = [OneSpan(number, 1, name=f"GET /{number % 2}", service="shop") for number in range(1, 21)]
        send(settings, *spans)
        for url in urls:
            wait_until(lambda url=url: _spans_of(url) == 20, 30, "all are counted")  # type: ignore[misc]
            assert [table["name"] for table in get(f"{url}/tables")["tables"]][:3] == [
                "partitions",
                "segments",
                "chunks",
            ]
            assert get(f"{url}/tables/services/single-tenant/shop")["rows"] == {
                "single-tenant/shop": {"spans": 20, "operations": 2}
            }
            operations = get(f"{url}/tables/operations?prefix=single-tenant/shop&limit=1")
            assert operations["rows"] == {"single-tenant/shop/GET /0": {"spans": 10}}
            assert (operations["total"], operations["truncated"], operations["missing_workers"]) == (2, True, [])
            attributes = get(f"{url}/tables/attributes/single-tenant/resource.service.name")
            assert attributes["rows"]["single-tenant/resource.service.name"] == {"spans": 20}
            assert get(f"{url}/tables/services/nobody")[0] == 404
            assert get(f"{url}/tables/nothing")[0] == 404
            assert get(f"{url}/tables/services?limit=0")[0] == 400
        wait_until(lambda: _chunk_spans(urls[0]) == 20, 30, "all are in chunks")
        chunk = next(iter(get(f"{urls[1]}/tables/chunks")["rows"].values()))
        assert chunk["bucket"] in settings.store.buckets
        assert chunk["first"] <= chunk["last"]
    finally:
        workers.end_all()


def _spans_of(url: str) -> int:
    rows = get(f"{url}/tables/services")["rows"]
    return sum(row["spans"] for row in rows.values())


def _chunk_spans(url: str) -> int:
    return sum(row["spans"] for row in get(f"{url}/tables/chunks")["rows"].values())


def test_who_goes_away_while_an_answer_is_sent_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    async def asked_and_left() -> None:
        ended = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await streamed(request, endless())
            finally:
                ended.set()

        app = web.Application()
        app.router.add_get("/live", answer)
        runner, port = web.AppRunner(app), free_port()  # as Faust runs it: handlers are not cancelled
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: worker\r\n\r\n")
        await reader.readexactly(1 << 21)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 30)
        await runner.cleanup()

    asyncio.run(asked_and_left())
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


def test_a_live_answer_waits_for_what_is_on_its_way(settings: Settings, tmp_path: Path) -> None:
    workers = Workers(settings, tmp_path, seal_age_s=600)
    try:
        url = workers.start("one")
        wait_until(lambda: is_ready(url), 60, "the worker is ready")
        for number in range(1, 6):
            partition = partition_of(trace_id(1), settings.kafka.partitions)
            end = send(settings, OneSpan(1, number))[partition]

            *blocks, last = live(f"{url}/live?want={partition}:0&until={partition}:{end}&wait_s=5")

            assert last.owner
            assert last.next == end == number
            assert [one for block in blocks if block.ipc for one in span_ids(block)] == list(range(1, number + 1))
            of_trace = live(f"{url}/live?want={partition}:0&trace_id={trace_id(1).hex()}")
            assert sum(block.spans for block in of_trace) == number
        began_s = time.monotonic()
        late = live(f"{url}/live?want={partition}:0&until={partition}:99&wait_s=0.5")
        assert 0.5 <= time.monotonic() - began_s < 5
        assert late[-1].next == 5
        elsewhere = live(f"{url}/live?want=1000:0&until=1000:5&wait_s=5")
        assert [block.owner for block in elsewhere] == [False]
    finally:
        workers.end_all()
