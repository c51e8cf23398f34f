"""OTLP/HTTP: what each request gets."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.pipeline.receive.conftest import ReceiverInProcess
from tests.pipeline.spans.test_wire import all_spans, request_of, span_of, with_long_value
from tests.waiting import wait_until_async

pytestmark = pytest.mark.anyio
GOOD = request_of(span_of(1), span_of(2)).SerializeToString()
SEED_EXAMPLE = (Path(__file__).parent / "seed_example.json").read_bytes()
JSON = "application/json"


def status_of(response: httpx.Response) -> Status:
    """The google.rpc.Status of a refusal, in whichever form."""
    if response.headers["content-type"] == JSON:
        return Status(**orjson.loads(response.content))
    assert response.headers["content-type"] == "application/x-protobuf"
    return Status.FromString(response.content)


async def test_a_good_request_gets_an_empty_answer_once_kafka_has_it() -> None:
    receiver = ReceiverInProcess()

    response = await receiver.post(GOOD)

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/x-protobuf"
    assert all_spans(receiver.kafka.data()) == [span_of(1), span_of(2)] or len(all_spans(receiver.kafka.data())) == 2
    assert receiver.ingest.inflight.bytes == 0


async def test_the_seed_documents_example_is_taken_as_it_stands() -> None:
    receiver = ReceiverInProcess()

    response = await receiver.post(SEED_EXAMPLE, JSON)

    assert (response.status_code, response.content) == (200, b"{}")
    (span,) = all_spans(receiver.kafka.data())
    assert span.trace_id.hex() == "0000000000000000a1b2c3d4e5f67890"
    assert span.name == "http.request"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(GOOD)),
        ("deflate", zlib.compress(GOOD)),
        ("zstd", zstandard.ZstdCompressor().compress(GOOD)),
        ("identity", GOOD),
    ],
)
async def test_every_encoding_is_taken(encoding: str, packed: bytes) -> None:
    receiver = ReceiverInProcess()

    response = await receiver.post(packed, content_encoding=encoding)

    assert response.status_code == 200
    assert len(all_spans(receiver.kafka.data())) == 2


async def test_other_methods_and_content_types_are_refused_in_tempos_words() -> None:
    receiver = ReceiverInProcess()

    get = await receiver.client.get("/v1/traces")
    text = await receiver.post(GOOD, "text/plain")

    assert (get.status_code, get.text) == (405, "405 method not allowed, supported: [POST]")
    assert text.status_code == 415
    assert text.text == "415 unsupported media type, supported: [application/json, application/x-protobuf]"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"\xff\xff", "application/x-protobuf"), (b"garbage", JSON), (b"\x0a\x05ab", "application/x-protobuf")],
)
async def test_a_body_that_does_not_parse_gets_400_with_a_status_in_its_own_form(
    body: bytes, content_type: str
) -> None:
    receiver = ReceiverInProcess()

    response = await receiver.post(body, content_type)

    assert response.status_code == 400
    assert response.headers["content-type"] == content_type
    assert status_of(response).code == 3
    assert status_of(response).message
    assert receiver.kafka.values == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "br"])
async def test_bad_compression_gets_400(encoding: str) -> None:
    response = await ReceiverInProcess().post(b"nonsense", content_encoding=encoding)

    assert response.status_code == 400
    assert status_of(response).code == 3


@pytest.mark.parametrize("packed", [bytes(20_000), gzip.compress(bytes(50_000_000))], ids=["large", "bomb"])
async def test_a_request_too_large_as_sent_or_unpacked_gets_413(packed: bytes) -> None:
    receiver = ReceiverInProcess(request_bytes_max=10_000 if len(packed) == 20_000 else 1_000_000)
    encoding = {} if len(packed) == 20_000 else {"content_encoding": "gzip"}

    response = await receiver.post(packed, **encoding)

    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert receiver.ingest.inflight.bytes == 0


async def test_a_request_without_length_is_cut_off_at_the_limit() -> None:
    receiver = ReceiverInProcess(request_bytes_max=10_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield bytes(1000)

    response = await receiver.client.post(
        "/v1/traces", content=endless(), headers={"content-type": "application/x-protobuf"}
    )

    assert response.status_code == 413
    assert sent < 20_000


@pytest.mark.parametrize("content_type", ["application/x-protobuf", JSON])
async def test_bad_spans_are_named_in_partial_success_and_the_others_taken(content_type: str) -> None:
    receiver = ReceiverInProcess()
    body: Any = request_of(span_of(1), span_of(2, trace_id=bytes(16)), span_of(3, span_id=b"abc")).SerializeToString()
    if content_type == JSON:
        spans = [
            {"traceId": "01" * 16, "spanId": "01" * 8},
            {"traceId": "00" * 16, "spanId": "01" * 8},
            {"traceId": "odd", "spanId": "01" * 8},
        ]
        body = orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})

    response = await receiver.post(body, content_type)

    assert response.status_code == 200
    if content_type == JSON:
        partial = orjson.loads(response.content)["partialSuccess"]
        count, message = int(partial["rejectedSpans"]), partial["errorMessage"]
    else:
        answer = ExportTraceServiceResponse.FromString(response.content)
        count, message = answer.partial_success.rejected_spans, answer.partial_success.error_message
    assert count == 2
    assert "2 spans rejected: 1 because" in message
    assert "trace ID is all zero" in message
    assert len(all_spans(receiver.kafka.data())) == 1


async def test_a_span_with_invalid_utf8_is_repaired_and_the_request_taken() -> None:
    receiver = ReceiverInProcess()

    response = await receiver.post(
        request_of(span_of(1, name="NAME")).SerializeToString().replace(b"NAME", b"a\xff\xffb")
    )

    assert (response.status_code, response.content) == (200, b"")
    assert all_spans(receiver.kafka.data())[0].name == "a\ufffd\ufffdb"


async def test_a_span_larger_than_a_record_is_cut_and_taken() -> None:
    receiver = ReceiverInProcess()

    response = await receiver.post(request_of(with_long_value(1, 2_000_000)).SerializeToString())

    assert (response.status_code, response.content) == (200, b"")
    assert all(len(value) < 900_000 for value in receiver.kafka.values)


@pytest.mark.parametrize("behaviour", ["fails", "silent"])
async def test_without_kafkas_confirmation_a_request_gets_503_and_when_to_try_again(behaviour: str) -> None:
    receiver = ReceiverInProcess(retry_after_s=7)
    receiver.kafka.behaviour = behaviour

    response = await receiver.post(GOOD)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert status_of(response).code == 14
    assert receiver.ingest.inflight.bytes == 0


async def test_beyond_the_bytes_under_way_a_request_gets_503_and_is_taken_later() -> None:
    receiver = ReceiverInProcess(inflight_bytes_max=len(GOOD) * 3 // 2 + 1024, ack_timeout_s=5)
    receiver.kafka.behaviour = "silent"
    body = request_of(with_long_value(1, 1000)).SerializeToString()
    waiting = asyncio.create_task(receiver.post(body))
    await wait_until_async(lambda: receiver.ingest.inflight.bytes > 0)

    refused = await receiver.post(body)

    assert refused.status_code == 503
    assert "waiting for Kafka" in status_of(refused).message
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    receiver.kafka.behaviour = "confirms"
    assert receiver.ingest.inflight.bytes == 0
    assert (await receiver.post(body)).status_code == 200


async def test_a_tenant_beyond_its_rate_gets_429_and_when_to_try_again() -> None:
    receiver = ReceiverInProcess(tenant_rate_bytes_per_s=len(GOOD) / 10, tenant_burst_bytes=len(GOOD))
    assert (await receiver.post(GOOD)).status_code == 200

    response = await receiver.post(GOOD)

    assert response.status_code == 429
    assert response.headers["retry-after"] in ("9", "10")
    assert status_of(response).code == 8
    assert status_of(response).message.startswith("RATE_LIMITED:")


async def test_without_multitenancy_the_tenant_header_is_ignored() -> None:
    receiver = ReceiverInProcess()

    assert (await receiver.post(GOOD, x_scope_orgid="a|b")).status_code == 200

    assert set(receiver.kafka.tenants) == {b"single-tenant"}


async def test_with_multitenancy_the_header_is_needed_valid_and_kept() -> None:
    receiver = ReceiverInProcess(multitenancy=True)

    missing = await receiver.post(GOOD)
    invalid = await receiver.post(GOOD, x_scope_orgid="a|b")
    taken = await receiver.post(GOOD, x_scope_orgid="team-a")

    assert (missing.status_code, status_of(missing).message) == (401, "no org id")
    assert invalid.status_code == 400
    assert taken.status_code == 200
    assert set(receiver.kafka.tenants) == {b"team-a"}


async def test_a_receiver_that_stops_refuses_says_so_and_is_not_ready() -> None:
    receiver = ReceiverInProcess()
    assert (await receiver.client.get("/ready")).text == "ready\n"

    receiver.ingest.close("it is stopping")

    assert (await receiver.post(GOOD)).status_code == 503
    assert (await receiver.client.get("/ready")).status_code == 503


async def test_metrics_tell_what_was_taken_and_refused() -> None:
    receiver = ReceiverInProcess()
    await receiver.post(request_of(span_of(1), span_of(2, span_id=b"")).SerializeToString())
    await receiver.post(b"\xff")

    metrics = (await receiver.client.get("/metrics")).text

    assert 'spanstream_receiver_rejected_spans_total{reason="span ID is not 8 bytes"}' in metrics
    assert 'spanstream_receiver_requests_total{protocol="http",status="400"}' in metrics
    assert "spanstream_receiver_inflight_bytes 0.0" in metrics


async def test_metrics_of_some_names_alone() -> None:
    names = {"name[]": ["spanstream_receiver_inflight_bytes", "spanstream_receiver_records_total"]}

    lines = (await ReceiverInProcess().client.get("/metrics", params=names)).text.splitlines()

    assert {line.split()[0] for line in lines if not line.startswith("#")} == set(names["name[]"])


async def test_other_paths_are_not_found() -> None:
    assert (await ReceiverInProcess().client.get("/v1/metrics")).status_code == 404
