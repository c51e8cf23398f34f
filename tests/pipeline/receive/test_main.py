"""The receiver process on a real Kafka: start, stop, Kafka away, both protocols."""

from __future__ import annotations

import asyncio
import gzip
import socket

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pipeline.receive.grpc import SERVICE
from pipeline.receive.main import Receiver, run
from tests.pipeline.receive.running import data_of, receiver_settings, records_of, running_receiver
from tests.pipeline.spans.test_wire import all_spans, request_of, span_of
from tests.waiting import wait_until_async
from topics import spans_by_trace
from topics.errors import SettingsError
from topics.partitioner import partition_of
from topics.settings import KafkaSettings

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
GOOD = request_of(span_of(1), span_of(2)).SerializeToString()
PROTOBUF = {"content-type": "application/x-protobuf"}


def url_of(receiver: Receiver) -> str:
    """Where spans are posted."""
    return f"http://127.0.0.1:{receiver.http_port}/v1/traces"


async def export(receiver: Receiver, body: bytes, **options: object) -> ExportTraceServiceResponse:
    """One call over gRPC. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Export", response_deserializer=ExportTraceServiceResponse.FromString)
        return await call(body, timeout=20, **options)


async def test_what_was_acknowledged_stands_on_the_topic_by_trace_with_tenant_and_time(
    kafka_settings: KafkaSettings,
) -> None:
    settings = receiver_settings(kafka_settings, multitenancy=True)
    request = request_of(*[span_of(n, name=f"span {n}") for n in range(1, 200)]).SerializeToString()

    async with running_receiver(settings) as receiver, httpx.AsyncClient() as client:
        answer = await client.post(url_of(receiver), content=request, headers=PROTOBUF | {"x-scope-orgid": "team-a"})
        assert (answer.status_code, answer.content) == (200, b"")
        records = await asyncio.to_thread(records_of, settings)

    assert sorted(span.name for span in all_spans(data_of(records))) == sorted(f"span {n}" for n in range(1, 200))
    for record in records:
        spans = all_spans(data_of([record]))
        assert {partition_of(span.trace_id, kafka_settings.partitions) for span in spans} == {record.partition()}
        assert record.key() == spans[0].trace_id.hex().encode()
        assert spans_by_trace.tenant_of(record.headers()) == "team-a"
        assert int(dict(record.headers() or [])["received_unix_ns"] or b"") > 1_700_000_000_000_000_000


@pytest.mark.parametrize("compression", list(grpc.Compression))
async def test_grpc_takes_every_compression_that_grpc_has(
    kafka_settings: KafkaSettings, compression: grpc.Compression
) -> None:
    settings = receiver_settings(kafka_settings)
    async with running_receiver(settings) as receiver:
        answer = await export(receiver, GOOD, compression=compression)
        records = await asyncio.to_thread(records_of, settings)

    assert answer == ExportTraceServiceResponse()
    assert len(all_spans(data_of(records))) == 2


async def test_grpc_answers_with_partial_success_and_the_codes_of_the_protocol(kafka_settings: KafkaSettings) -> None:
    settings = receiver_settings(kafka_settings, multitenancy=True, tenant_rate_bytes_per_s=1.0, tenant_burst_bytes=300)
    tenant = {"metadata": (("x-scope-orgid", "a"),)}
    failures = []
    async with running_receiver(settings) as receiver:
        answer = await export(receiver, request_of(span_of(1), span_of(2, span_id=b"")).SerializeToString(), **tenant)
        for body, options in (
            (b"\xff\xff", tenant),
            (GOOD, {}),
            (GOOD, {"metadata": (("x-scope-orgid", "a|b"),)}),
            (GOOD * 3, tenant),
            (bytes(5 << 20), tenant),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await export(receiver, body, **options)
            failures.append(failure.value)

    assert answer.partial_success.rejected_spans == 1
    assert "span ID is not 8 bytes" in answer.partial_success.error_message
    assert [failure.code().name for failure in failures] == [
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "INVALID_ARGUMENT",
        "RESOURCE_EXHAUSTED",
        "RESOURCE_EXHAUSTED",
    ]
    details = dict(failures[3].trailing_metadata() or ())["grpc-status-details-bin"]
    retry = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(retry)
    assert retry.retry_delay.seconds > 0


async def test_a_grpc_bomb_is_refused(kafka_settings: KafkaSettings) -> None:
    settings = receiver_settings(kafka_settings)
    async with running_receiver(settings) as receiver:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await export(receiver, bytes(100 << 20), compression=grpc.Compression.Gzip)

    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stop_gives_requests_under_way_their_answer_and_loses_none(kafka_settings: KafkaSettings) -> None:
    settings = receiver_settings(kafka_settings, batch_wait_s=2.0, batch_wait_max_s=2.0)
    body = request_of(span_of(1)).SerializeToString()
    async with httpx.AsyncClient() as client:

        async def send(number: int) -> tuple[int, int]:
            body = request_of(span_of(number)).SerializeToString()
            return number, (await client.post(url_of(receiver), content=body, headers=PROTOBUF)).status_code

        async with running_receiver(settings) as receiver:
            sending = [asyncio.create_task(send(number)) for number in range(1, 50)]
            await wait_until_async(lambda: receiver.inflight_bytes() >= 40 * len(body))
        answers = await asyncio.gather(*sending)

    records = await asyncio.to_thread(records_of, settings)
    found = {int.from_bytes(span.trace_id, "big") for span in all_spans(data_of(records))}
    acknowledged = {number for number, status in answers if status == 200}
    assert len(acknowledged) >= 40
    assert acknowledged <= found


async def test_before_kafka_answers_requests_get_503_and_ready_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{silent.getsockname()[1]}", request_timeout_s=0.3)
        settings = receiver_settings(kafka)
        receiver = Receiver(settings)
        await receiver.start()
        async with httpx.AsyncClient() as client:
            answer = await client.post(url_of(receiver), content=GOOD, headers=PROTOBUF)
            ready = await client.get(f"http://127.0.0.1:{receiver.http_port}/ready")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await export(receiver, GOOD)
        await receiver.stop()

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert ready.status_code == 503
    assert "Kafka" in ready.text
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("taken", ["http_port", "grpc_port"])
async def test_a_port_that_is_taken_is_a_clear_error(kafka_settings: KafkaSettings, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        receiver = Receiver(receiver_settings(kafka_settings, **{taken: port}))

        with pytest.raises(SettingsError, match=f"receiver.{taken} {port}"):
            await receiver.start()


async def test_run_ends_when_it_is_told_to(kafka_settings: KafkaSettings) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(run(receiver_settings(kafka_settings), stop))

    stop.set()

    await asyncio.wait_for(running, 20)


async def test_a_gzip_body_is_taken_over_the_wire(kafka_settings: KafkaSettings) -> None:
    settings = receiver_settings(kafka_settings)
    async with running_receiver(settings) as receiver, httpx.AsyncClient() as client:
        answer = await client.post(
            url_of(receiver), content=gzip.compress(GOOD), headers=PROTOBUF | {"content-encoding": "gzip"}
        )

    assert answer.status_code == 200
