"""Stock programs send to us as they are: the OpenTelemetry SDK and its exporters."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import uvloop
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Status, StatusCode

from pipeline.receive.main import Receiver
from tests.pipeline.receive.running import data_of, receiver_settings, records_of, running_receiver
from topics.partitioner import partition_of
from topics.settings import KafkaSettings

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def receiver_beside(kafka: KafkaSettings) -> Iterator[Receiver]:
    """A receiver on a thread and loop of its own, since stock exporters block."""
    started: dict[str, Any] = {}
    up = threading.Event()

    async def serve() -> None:
        started["stop"], started["loop"] = asyncio.Event(), asyncio.get_running_loop()
        async with running_receiver(receiver_settings(kafka)) as receiver:
            started["receiver"] = receiver
            up.set()
            await started["stop"].wait()

    thread = threading.Thread(target=uvloop.run, args=(serve(),), daemon=True)
    thread.start()
    assert up.wait(30)
    yield started["receiver"]
    started["loop"].call_soon_threadsafe(started["stop"].set)
    thread.join(30)


def send_traces(exporter: SpanExporter, traces: int) -> list[str]:
    """What a program does: a root and a child a trace, with attributes, an event, a link and a failure."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "host.cpus": 4}))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=50))
    tracer = provider.get_tracer("shop.http", "1.2", attributes={"scope.kind": "demo"})
    trace_ids = []
    for number in range(traces):
        with tracer.start_as_current_span("GET /cart", attributes={"n": number, "ok": True, "l": ["a", "b"]}) as root:
            trace_ids.append(f"{root.get_span_context().trace_id:032x}")
            with tracer.start_as_current_span("query", links=[Link(root.get_span_context())]) as child:
                child.add_event("retry", {"after_ms": 1.5})
                child.set_status(Status(StatusCode.ERROR, "timeout"))
    assert provider.force_flush(20_000)
    provider.shutdown()
    return trace_ids


@pytest.mark.parametrize("protocol", ["grpc", "grpc-gzip", "http", "http-gzip", "http-deflate"])
def test_the_opentelemetry_sdk_sends_over_grpc_and_http(kafka_settings: KafkaSettings, protocol: str) -> None:
    with receiver_beside(kafka_settings) as receiver:
        exporter: SpanExporter
        if protocol.startswith("grpc"):
            compression = grpc.Compression.Gzip if protocol.endswith("gzip") else grpc.Compression.NoCompression
            endpoint = f"http://127.0.0.1:{receiver.grpc_port}"
            exporter = GrpcExporter(endpoint=endpoint, insecure=True, compression=compression)
        else:
            kinds = {
                "http": Compression.NoCompression,
                "http-gzip": Compression.Gzip,
                "http-deflate": Compression.Deflate,
            }
            exporter = HttpExporter(
                endpoint=f"http://127.0.0.1:{receiver.http_port}/v1/traces", compression=kinds[protocol]
            )
        trace_ids = send_traces(exporter, 25)
        records = records_of(receiver_settings(kafka_settings))

    data = data_of(records)
    spans = [span for r in data.resource_spans for s in r.scope_spans for span in s.spans]
    assert sorted({span.trace_id.hex() for span in spans}) == sorted(trace_ids)
    assert len(spans) == 50
    for resource in data.resource_spans:
        assert "shop" in str(resource.resource.attributes)
        assert resource.scope_spans[0].scope.name == "shop.http"
        assert resource.scope_spans[0].scope.attributes[0].key == "scope.kind"
    child = next(span for span in spans if span.name == "query")
    assert (child.status.code, child.status.message) == (2, "timeout")
    assert child.events[0].name == "retry"
    assert child.links[0].trace_id == child.trace_id
    for record in records:
        partitions = {
            partition_of(span.trace_id, kafka_settings.partitions)
            for r in data_of([record]).resource_spans
            for s in r.scope_spans
            for span in s.spans
        }
        assert partitions == {record.partition()}
