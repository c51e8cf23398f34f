"""A stock OpenTelemetry program: three services of a shop, one order, sent with the SDK's own exporters.

`python -m agents.demo.shop http://127.0.0.1:4318 127.0.0.1:4317` sends by HTTP and gRPC, and prints the trace ID when
all is flushed. Nothing here knows spanstream.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id


def provider_of(service: str, exporter: SpanExporter) -> TracerProvider:
    """A service's provider, as its documentation has it."""
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": "1.4.2"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@contextmanager
def working(tracer: Tracer, name: str, milliseconds: float, **options: Any) -> Iterator[Span]:
    """A span that works a while before and after what is within."""
    with tracer.start_as_current_span(name, **options) as span:
        time.sleep(milliseconds / 2000)
        yield span
        time.sleep(milliseconds / 2000)


def order(frontend: Tracer, checkout: Tracer, payment: Tracer) -> str:
    """One order: the first payment fails, the second goes through. Returns its trace ID."""
    server: dict[str, Any] = {"kind": SpanKind.SERVER}
    client: dict[str, Any] = {"kind": SpanKind.CLIENT}
    with working(frontend, "POST /orders", 6, **server) as root:
        root.set_attributes({"http.request.method": "POST", "http.route": "/orders", "http.response.status_code": 201})
        with working(frontend, "read cart", 3) as cart:
            cart.set_attribute("cart.items", ["tea", "cups", "honey"])
        with working(frontend, "POST checkout", 2, **client), working(checkout, "POST /checkout", 5, **server):
            with working(checkout, "SELECT stock", 4, **client) as query:
                query.set_attributes({"db.system.name": "postgresql", "db.query.text": "SELECT * FROM stock"})
            for attempt in (1, 2):
                with working(checkout, "POST payment", 2, **client):
                    pay(payment, attempt)
        root.add_event("order confirmed", {"order.id": 4711})
        return format_trace_id(root.get_span_context().trace_id)


def pay(payment: Tracer, attempt: int) -> None:
    """A charge; the first attempt times out."""
    with working(payment, "charge card", 8, kind=SpanKind.SERVER) as charge:
        charge.set_attributes({"payment.attempt": attempt, "payment.amount": 23.9, "payment.retried": attempt > 1})
        if attempt == 1:
            charge.record_exception(TimeoutError("the bank took longer than 5 ms"))
            charge.set_status(StatusCode.ERROR, "bank timed out")


def main(http_url: str, grpc_target: str) -> int:
    """Send one order. Exit code 1 where an exporter did not get its acknowledgement."""
    providers = [
        provider_of("frontend", HttpExporter(endpoint=f"{http_url}/v1/traces")),
        provider_of("checkout", GrpcExporter(endpoint=grpc_target, insecure=True)),
        provider_of("payment", GrpcExporter(endpoint=grpc_target, insecure=True)),
    ]
    trace_id = order(*(provider.get_tracer("shop", "1.0") for provider in providers))
    sent = [provider.force_flush(10_000) for provider in providers]
    for provider in providers:
        provider.shutdown()
    sys.stdout.write(f"{trace_id}\n")
    return 0 if all(sent) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
