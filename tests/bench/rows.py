"""How each figure is measured."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles

import aiohttp
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agents.commands.local_run import prepare
from agents.load.blocks import Load
from infra.ports import free_port
from infra.stack import LocalStack
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.store.chunk import encode_chunk
from pipeline.store.objects import ObjectStore
from tests.bench.processes import Measured, load_command, send_load, until
from tests.bench.report import Report
from topics.settings import (
    ChunkSettings,
    KafkaSettings,
    QuerierSettings,
    ReceiverSettings,
    Settings,
    StackSettings,
    WorkerSettings,
)

SEED = 11
TRACES_ASKED = 200
POLL_S = 0.01
AT_ONCE = 2
IDLE_STARTS = 2  # the first may compile modules, which is no start's cost
RATE = 10_000.0
RATE_SHARE = 0.95  # probes count when so much of it came
Figures = dict[str, float]


class Bench:
    """A Kafka and a MinIO of its own; each group of rows has its own topics."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        stack = StackSettings(
            data_dir=folder / "stack", kafka_port=0, kafka_controller_port=0, store_port=0, store="minio"
        )
        self._stack = LocalStack(Settings(stack=stack), print)

    def __enter__(self) -> Bench:
        self._running = self._stack.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.stop()

    def settings(self, group: str, **worker: object) -> Settings:
        """Settings of a group of rows: its own topics, buckets, ports and folders."""
        folder = self._folder / group
        folder.mkdir(exist_ok=True)
        found = Settings(
            kafka=KafkaSettings(
                bootstrap_servers=self._running.kafka.bootstrap_servers, topic_prefix=f"{group}-", group=group
            ),
            store=self._running.store.model_copy(update={"buckets": (f"{group}-a", f"{group}-b")}),
            receiver=ReceiverSettings(http_port=free_port(), grpc_port=free_port()),
            worker=WorkerSettings(port=free_port(), data_dir=folder / "worker", **worker),  # type: ignore[arg-type]
            querier=QuerierSettings(http_port=free_port(), grpc_port=free_port(), data_dir=folder / "querier"),
        )
        prepare(found)
        return found

    def process(self, command: str, settings: Settings) -> Measured:
        """A process of these settings, not yet started."""
        ports = {
            "receive": settings.receiver.http_port,
            "worker": settings.worker.port,
            "serve": settings.querier.http_port,
        }
        return Measured(command, settings, f"http://127.0.0.1:{ports[command]}", self._folder / f"{command}.log")

    def fill(
        self, settings: Settings, spans: int, *more: str, seed: int = SEED, rate: float = 0.0, timeout_s: float = 600.0
    ) -> None:
        """Send a load and wait until it is stored. more: its options; rate: spans/s, 0: as fast as it goes."""
        load = Load(spans, seed)
        with self.process("receive", settings) as receiver, self.process("worker", settings) as worker:
            send_load(receiver.url, spans, seed, rate, *more)
            stored = "spanstream_worker_stored_spans_total"
            until(lambda: worker.metric(stored) >= load.spans, timeout_s, "all is stored")

    # ---- what a span costs

    def cost(self, report: Report, spans: int, *, seal_age_s: float = 20.0) -> None:
        """Receiver, worker and store one after the other, and traces by ID from what they stored."""
        settings = self.settings("cost", seal_age_s=seal_age_s)
        load = Load(spans, SEED)
        idle: list[float] = []
        report.measure("an idle worker's start", lambda: self._idle(settings, idle))
        report.measure("receiver", lambda: self._receiver(settings, spans, load))
        report.measure("worker", lambda: self._worker(settings, load, idle))
        report.measure("store", lambda: self._size(settings, load))
        report.measure("by ID from the store", lambda: self._stored(settings, load))

    def _idle(self, settings: Settings, idle: list[float]) -> Figures:
        for _ in range(IDLE_STARTS):
            with self.process("worker", settings) as worker:
                idle.append(worker.cpu_s())
        return {}

    def _receiver(self, settings: Settings, spans: int, load: Load) -> Figures:
        with self.process("receive", settings) as receiver:
            send_load(receiver.url, 1000, SEED + 1)  # what is made at first use is not a span's cost
            before_s = receiver.cpu_s()
            told = send_load(receiver.url, spans, SEED)
            assert told["sent"]["spans_acknowledged"] == load.spans, told
            return {
                "receiver CPU": (receiver.cpu_s() - before_s) / load.spans * 1e6,
                "peak memory, receiver": receiver.peak_mb(),
            }

    def _worker(self, settings: Settings, load: Load, idle: list[float]) -> Figures:
        sent = load.spans + Load(1000, SEED + 1).spans
        with self.process("worker", settings) as worker:
            stored = "spanstream_worker_stored_spans_total"
            until(lambda: worker.metric(stored) >= sent, 600, "all is stored", poll_s=1.0)
            assert worker.metric(stored) == sent
            cpu_s = worker.cpu_s() - min(idle)
            return {"worker CPU, fetch to stored": cpu_s / sent * 1e6, "peak memory, worker": worker.peak_mb()}

    def _size(self, settings: Settings, load: Load) -> Figures:
        store = ObjectStore(settings.store)
        stored = sum(one.size for bucket in store.buckets for one in store.list(bucket, ""))
        return {"stored, all objects": stored / load.spans}

    def _stored(self, settings: Settings, load: Load) -> Figures:
        per_block = max(1, TRACES_ASKED // load.blocks)
        ids = [one.tobytes() for block in range(load.blocks) for one in load.trace_ids(block)[:per_block]]
        with self.process("serve", settings) as querier:
            asyncio.run(ask_all(querier.url, ids[:40], warm_up=True))
            times_ms = asyncio.run(ask_all(querier.url, ids[:TRACES_ASKED]))
            return {
                "trace by ID from the store, warm p50": median(times_ms),
                "peak memory, querier": querier.peak_mb(),
            }

    # ---- how soon it is found

    def fresh(self, report: Report, probes: int) -> None:
        """Probes by ID and by tag while 10,000 spans a second come in."""
        settings = self.settings("fresh")
        with (
            self.process("receive", settings) as receiver,
            self.process("worker", settings) as worker,
            self.process("serve", settings) as querier,
        ):
            command = load_command(receiver.url, int(RATE * 600), SEED + 2, RATE)
            load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                until(lambda: worker.metric("spanstream_worker_spans_total") > RATE, 60, "the load has begun")
                began_s, before = time.monotonic(), worker.metric("spanstream_worker_spans_total")
                report.measure("found by ID and by tag", lambda: self._probes(receiver, querier, probes))
                report.measure("by ID from live segments", lambda: self._live(receiver, querier))
                rate = (worker.metric("spanstream_worker_spans_total") - before) / (time.monotonic() - began_s)
                assert load.poll() is None, "the load ended before the last probe"
                assert rate > RATE_SHARE * RATE, f"only {rate:.0f} spans came a second"
            finally:
                load.kill()
                load.wait()
            report.measure(
                "peak memory at 10,000 spans a second",
                lambda: {
                    "peak memory, receiver": receiver.peak_mb(),
                    "peak memory, worker": worker.peak_mb(),
                    "peak memory, querier": querier.peak_mb(),
                },
            )

    def _probes(self, receiver: Measured, querier: Measured, probes: int) -> Figures:
        by_id, by_tag = asyncio.run(probe_all(receiver.url, querier.url, probes, probes))
        figures = {}
        for kind, times_ms in (("ID", by_id), ("tag", by_tag)):
            cuts = quantiles(times_ms, n=100)
            figures[f"found after acknowledgement by {kind}, p50"] = cuts[49]
            figures[f"found after acknowledgement by {kind}, p99"] = cuts[98]
        return figures

    def _live(self, receiver: Measured, querier: Measured) -> Figures:
        async def story() -> list[float]:
            async with aiohttp.ClientSession() as session:
                ids = [secrets.token_bytes(16) for _ in range(TRACES_ASKED)]
                await asyncio.gather(*(send_probe(session, receiver.url, one, "") for one in ids[:AT_ONCE]))
                for one in ids[AT_ONCE:]:
                    await send_probe(session, receiver.url, one, "")
                await found_by_id(session, querier.url, ids[-1])
            return await ask_all(querier.url, ids)

        return {"trace by ID from live segments, p50": median(asyncio.run(story()))}

    # ---- restart

    def restart(self, spans: int) -> Figures:
        """kill -9 with nothing sealed; until every partition is loaded and caught up, and traces are live again."""
        sizes = {"seal_spans": 10**9, "seal_bytes": 1 << 50, "open_bytes_max": 1 << 50}
        huge = {"seal_age_s": 36_000.0, "static_member": "bench", **sizes}
        settings, load = self.settings("restart", **huge), Load(spans, SEED + 3)
        worker = self.process("worker", settings)
        with self.process("receive", settings) as receiver, self.process("serve", settings) as querier, worker:
            send_load(receiver.url, spans, SEED + 3)
            until(lambda: worker.metric("spanstream_worker_spans_total") >= load.spans, 300, "all is taken")
            ids = [one.tobytes() for block in range(load.blocks) for one in load.trace_ids(block)[:20]]
            asyncio.run(ask_all(querier.url, ids[:8]))
            worker.end(signal.SIGKILL)
            from_kafka_ms = asyncio.run(ask_all(querier.url, ids[:12]))
            worker.start()
            began_s = time.monotonic()
            worker.wait_ready()
            until(lambda: worker.metric("spanstream_worker_spans_total") >= load.spans, 120, "all is taken again")
            asyncio.run(ask_all(querier.url, ids[:TRACES_ASKED]))
            return {
                "restart after kill -9, 1 M unsealed spans": time.monotonic() - began_s,
                "trace by ID meanwhile, from Kafka, p50": median(from_kafka_ms),
            }

    # ---- rows that need no stack of ours

    @staticmethod
    def start() -> Figures:
        """`spanstream up` until it says that all is ready, the second time: the first makes caches."""
        with tempfile.TemporaryDirectory(prefix="spanstream-up-") as folder:
            ports = ("STACK_KAFKA", "STACK_KAFKA_CONTROLLER", "STACK_STORE", "RECEIVER_GRPC", "RECEIVER_HTTP")
            names = [f"SPANSTREAM_{name}_PORT" for name in (*ports, "QUERIER_HTTP", "WORKER")]
            variables = os.environ | {name: str(free_port()) for name in names} | {"SPANSTREAM_STACK_DATA_DIR": folder}
            times_s = [_up_s(variables) for _ in range(2)]
        return {"start until ready": times_s[1]}

    @staticmethod
    def events(spans: int = 200_000) -> Figures:
        """The chunk of a load with an event on every tenth span and a link on every fiftieth."""
        load, random = Load(spans, SEED + 4), np.random.default_rng(1)
        records = []
        for block in range(load.blocks):
            for body in load.block(block, time.time_ns()).bodies:
                request = ExportTraceServiceRequest.FromString(body)
                for span in (s for rs in request.resource_spans for ss in rs.scope_spans for s in ss.spans):
                    if random.random() < 0.1:
                        span.events.append(Span.Event(name="retry", time_unix_nano=span.start_time_unix_nano + 1000))
                    if random.random() < 0.02:
                        span.links.append(Span.Link(trace_id=random.bytes(16), span_id=random.bytes(8)))
                records.append(Record("t", len(records), request.SerializeToString()))
        table = decode(records, attribute_columns_max=200).spans
        limits, outlier = ChunkSettings(), np.zeros(table.num_rows, dtype=bool)
        chunk = encode_chunk(
            table, row_group_spans=limits.row_group_spans, zstd_level=limits.zstd_level, outlier=outlier
        )
        stored = len(chunk.parquet) + len(chunk.traces) + len(chunk.trace_filter)
        return {"stored, events on 10 % and links on 2 %": stored / table.num_rows}


def _up_s(variables: dict[str, str]) -> float:
    began_s = time.monotonic()
    up = subprocess.Popen([sys.executable, "-m", "agents.cli", "up", "--json"], env=variables, stdout=subprocess.PIPE)
    try:
        assert up.stdout is not None
        told = b"".join(iter(up.stdout.readline, b"}\n")) + b"}"  # one document, indented
        ready_s = time.monotonic() - began_s
        assert json.loads(told)
        return ready_s
    finally:
        up.terminate()  # not SIGINT: a shell that starts a bench in the background has it ignored
        up.wait(60)


async def ask_all(url: str, trace_ids: list[bytes], *, warm_up: bool = False) -> list[float]:
    """Milliseconds of each trace by ID, one after the other; each must be there."""
    times_ms = []
    async with aiohttp.ClientSession() as session:
        for trace_id in trace_ids:
            began_s = time.perf_counter()
            found = await get(session, f"{url}/api/traces/{trace_id.hex()}")
            times_ms.append((time.perf_counter() - began_s) * 1000)
            assert found or warm_up, f"trace {trace_id.hex()} was not found"
    return times_ms


async def probe_all(receiver: str, querier: str, ids: int, tags: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a probe's acknowledgement until it is found, of so many by ID and so many by tag."""
    async with aiohttp.ClientSession() as session:

        async def by_id() -> float:
            trace_id = secrets.token_bytes(16)
            acknowledged_s = await send_probe(session, receiver, trace_id, "")
            return (await found_by_id(session, querier, trace_id) - acknowledged_s) * 1000

        async def by_tag() -> float:
            mark = secrets.token_hex(8)
            acknowledged_s = await send_probe(session, receiver, secrets.token_bytes(16), mark)
            url = f"{querier}/api/search?tags=probe.mark%3D{mark}&limit=1"
            while not (await get(session, url) or {}).get("traces"):
                await asyncio.sleep(POLL_S)
            return (time.perf_counter() - acknowledged_s) * 1000

        return await _times(by_id, ids), await _times(by_tag, tags)


async def _times(probe: Callable[[], Awaitable[float]], probes: int) -> list[float]:
    times: list[float] = []

    async def work() -> None:
        while len(times) < probes:
            times.append(await asyncio.wait_for(probe(), 30))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return times


async def send_probe(session: aiohttp.ClientSession, receiver: str, trace_id: bytes, mark: str) -> float:
    """Send one span; when it was acknowledged."""
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=trace_id[:8], name="probe")
    )
    span.start_time_unix_nano = time.time_ns()
    span.end_time_unix_nano = span.start_time_unix_nano + 1000
    span.attributes.add(key="probe.mark").value.string_value = mark
    headers = {"Content-Type": "application/x-protobuf"}
    async with session.post(f"{receiver}/v1/traces", data=request.SerializeToString(), headers=headers) as answer:
        assert answer.status == 200, await answer.text()
    return time.perf_counter()


async def found_by_id(session: aiohttp.ClientSession, querier: str, trace_id: bytes) -> float:
    """When the trace was found."""
    while not await get(session, f"{querier}/api/traces/{trace_id.hex()}"):
        await asyncio.sleep(POLL_S)
    return time.perf_counter()


async def get(session: aiohttp.ClientSession, url: str) -> dict[str, object] | None:
    """The JSON of an answer, None for 404."""
    async with session.get(url) as answer:
        if answer.status == 404:
            return None
        assert answer.status == 200, f"{answer.status} {await answer.text()}"
        found: dict[str, object] = await answer.json()
        return found
