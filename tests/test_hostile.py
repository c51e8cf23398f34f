"""Input that nobody should send, a short run of each kind; `make test-long` runs a million."""

from __future__ import annotations

import asyncio
import random
import resource
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from pipeline.http_server import HttpServer, bind
from pipeline.partition.batch import SourceRecord, Wanted, prepare
from pipeline.partition.window import Window
from pipeline.receive.request import unpack
from tests.hostile import BODY_BYTES_MAX, SPAN, Hostile, bombs, mutated
from tests.pipeline.query.world import OneSpan
from tests.pipeline.serve.api import World, settings_of, with_api
from tests.waiting import wait_until_async
from topics.errors import RequestTooLargeError

COUNTS = {
    "protobuf": 2000,
    "json": 1000,
    "compressed": 1000,
    "records": 60,
    "inlet": 100,
    "chunk": 500,
    "asked_chunk": 500,
    "counted_chunk": 500,
    "joined_traces": 500,
    "manifest": 3000,
}
IDLE = 1050
PATHS = (
    *("/api/traces/{}", "/api/v2/traces/{}", "/api/search?q={}", "/api/search?tags={}", "/api/search?limit={}"),
    *("/api/search?start={}&end=5", "/api/metrics/query_range?q={}", "/api/metrics/query?q={}&since={}"),
    *("/api/v2/search/tag/{}/values", "/api/search/tag/{}/values", "/api/v2/search/tags?scope={}", "/api/where/{}"),
    *("/tables/{}", "/{}", "/trace/{}", "/api/services?start={}"),
)
VALUES = (
    *("{ span.a = 1 }", "{ status = error } >> { }", "{} | rate() by (name)", "1", "0" * 32, "a=b", "span.a", "-1"),
    *("../../etc/passwd", "\x00", "'; DROP TABLE x; --", "<script>", "\x1b[31m", "\ud7ff", "9" * 400, "{" * 500, "٣"),
)


@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_input_is_taken_or_refused_by_name(kind: str) -> None:
    hostile = Hostile(7)

    try:
        hostile.run(kind, COUNTS[kind])
    finally:
        hostile.close()

    assert hostile.outcomes.total() == COUNTS[kind]
    assert len(hostile.outcomes) > 1 or kind in ("records", "inlet"), hostile.outcomes


def test_a_record_that_makes_the_decoder_panic_is_a_dead_letter() -> None:
    hostile = Hostile(1)
    values = [mutated(hostile.seeds.requests[0], random.Random(seed)) for seed in range(1500)]
    records = [SourceRecord(at, "t", value, 1) for at, value in enumerate(values)]

    prepared = prepare(
        [Wanted(0, 0, Window(window_s=900, keys_max=1000), records)], SPAN, secret=b"s" * 32, now_unix_ns=9
    )

    assert prepared[0] is not None
    assert any("slice index" in letter.reason or "panic" in letter.reason for letter in prepared[0].dead)


def test_a_bomb_takes_no_more_memory_than_a_request_may() -> None:
    for encoding, body in bombs(256 << 20):
        tracemalloc.start()
        with pytest.raises(RequestTooLargeError):
            unpack(body, encoding, BODY_BYTES_MAX)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * BODY_BYTES_MAX, encoding


@pytest.mark.timeout(120)
def test_no_path_parameter_or_header_makes_an_error_of_the_server(tmp_path: Path) -> None:
    rng = random.Random(3)

    def prepare_world(world: World) -> None:
        world.send([OneSpan(trace=1, id=2)])

    async def ask(client: httpx.AsyncClient, _world: World) -> list[str]:
        wrong = []
        for _ in range(400):
            text = rng.choice(VALUES)
            if rng.random() < 0.6:
                text = mutated(text.encode(), rng).decode(errors="replace")[:600]
            path = rng.choice(PATHS).replace("{}", quote(text, safe=""))
            tenant = mutated(b"single-tenant", rng).decode("latin-1") if rng.random() < 0.2 else "single-tenant"
            headers = {"X-Scope-OrgID": tenant, "Accept": rng.choice(("application/protobuf", "*/*", "x"))}
            if not tenant.isprintable() or not tenant.isascii():
                headers.pop("X-Scope-OrgID")
            answer = await client.get(path, headers=headers)
            if answer.status_code >= 500 and not (answer.status_code == 503 and path.startswith("/tables")):
                wrong.append(f"{path}: {answer.status_code} {answer.text[:100]}")
        return wrong

    assert with_api(settings_of(tmp_path), prepare_world, ask) == []


# ---- slow and many connections


async def _app(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def _open_files(wanted: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, wanted)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_heads_are_closed_and_a_thousand_idle_connections_stop_nobody() -> None:
    async def main() -> None:
        listener = bind("127.0.0.1", 0, "test")
        port = listener.getsockname()[1]
        server = HttpServer(_app, timeout_keep_alive=6, backlog=2048)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.up.wait()

        slow = await asyncio.open_connection("127.0.0.1", port)
        long = await asyncio.open_connection("127.0.0.1", port)
        idle = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)))
        began = time.monotonic()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"
        assert len(server.server_state.connections) >= IDLE
        assert time.monotonic() - began < 6

        slow[1].write(b"GET / HTTP/1.1\r\nX-Slow: ")
        long[1].write(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 100) for n in range(3000)))
        await asyncio.wait_for(_closed(long[0]), 5)
        drip = asyncio.create_task(_drip(slow[1]))
        await asyncio.wait_for(_closed(slow[0]), 30)
        drip.cancel()
        await wait_until_async(lambda: len(server.server_state.connections) <= 1, 30)
        for _, writer in [*idle, slow, long]:
            writer.close()
        server.should_exit = True
        await serving
        listener.close()

    with _open_files(4096):
        asyncio.run(main())


async def _closed(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1000):
            pass
    except ConnectionError:
        pass


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.1)


def test_what_is_no_http_is_refused_and_the_server_goes_on() -> None:
    rng = random.Random(11)
    head = b"GET /%F0%9F%98%80/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"

    async def main() -> None:
        listener = bind("127.0.0.1", 0, "test")
        port = listener.getsockname()[1]
        server = HttpServer(_app, timeout_keep_alive=1)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.up.wait()
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(mutated(head, rng))
            await writer.drain()
            writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"
        server.should_exit = True
        await serving
        listener.close()

    asyncio.run(main())
