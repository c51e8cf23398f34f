"""Collecting spans into records, with a producer whose answers the test gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.receive.batch import Batcher
from pipeline.spans.wire import CutLimits
from tests.pipeline.spans.test_wire import all_spans, request_of, span_of, with_long_value
from tests.waiting import wait_until_async
from topics.errors import KafkaUnavailableError, RequestTooLargeError
from topics.partitioner import partition_of
from topics.settings import ReceiverSettings
from topics.topic import Topic

pytestmark = pytest.mark.anyio
PARTITIONS = 4


class Record:
    """What was sent, and the future its sender waits on."""

    def __init__(
        self, partition: int | None, key: bytes | None, value: bytes, headers: dict[str, bytes | None]
    ) -> None:
        self.partition, self.key, self.value, self.headers = partition, key, value, headers
        self.confirmed: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Kafka:
    """A sender that remembers."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def send(
        self,
        topic: Topic,
        partition: int | None,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> asyncio.Future[int]:
        assert topic.name == "spans_by_trace"
        self.records.append(Record(partition, key, value, dict(headers)))
        return self.records[-1].confirmed

    def confirm_all(self) -> None:
        for record in self.records:
            if not record.confirmed.done():
                record.confirmed.set_result(0)


def batcher_of(kafka: Kafka, output_bytes_max: int = 50_000_000, **changes: object) -> Batcher:
    """A batcher with a wait of 10 ms."""
    settings = ReceiverSettings(**({"batch_wait_s": 0.01} | changes))  # type: ignore[arg-type]
    limits = CutLimits(
        record_bytes_max=settings.record_bytes_max, attribute_bytes_max=65_536, output_bytes_max=output_bytes_max
    )
    return Batcher(kafka, settings, limits, PARTITIONS, unix_ns=lambda: 17)


def payload_of(*numbers: int) -> bytes:
    """A request with spans of these traces."""
    return request_of(*[span_of(number) for number in numbers]).SerializeToString()


async def test_spans_of_many_requests_share_a_record_of_their_tenant_and_partition() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka)

    outcomes = [batcher.add("a", payload_of(number, number + 100)) for number in range(1, 30)]
    outcomes.append(batcher.add("b", payload_of(1)))
    await wait_until_async(lambda: len(kafka.records) >= PARTITIONS + 1)
    assert not any(outcome.done() for outcome in outcomes)
    kafka.confirm_all()
    await asyncio.gather(*outcomes)

    assert len(kafka.records) == PARTITIONS + 1
    assert [record.headers["X-Scope-OrgID"] for record in kafka.records] == [b"a"] * PARTITIONS + [b"b"]
    assert {record.headers["received_unix_ns"] for record in kafka.records} == {b"17"}
    for record in kafka.records:
        spans = all_spans(TracesData.FromString(record.value))
        assert {partition_of(span.trace_id, PARTITIONS) for span in spans} == {record.partition}
        assert record.key == spans[0].trace_id.hex().encode()
    assert sum(len(all_spans(TracesData.FromString(record.value))) for record in kafka.records) == 2 * 29 + 1


async def test_a_request_is_acknowledged_only_when_all_its_records_are() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka)
    outcome = batcher.add("a", payload_of(*range(1, 50)))
    batcher.flush()
    assert len(kafka.records) == PARTITIONS

    for record in kafka.records[1:]:
        record.confirmed.set_result(0)
    await asyncio.sleep(0)
    assert not outcome.done()
    kafka.records[0].confirmed.set_result(0)

    assert await outcome == {}


async def test_one_record_that_fails_fails_every_request_in_it_and_no_other() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka)
    one, both, other = batcher.add("a", payload_of(1)), batcher.add("b", payload_of(1)), batcher.add("b", payload_of(2))
    batcher.flush()

    kafka.records[0].confirmed.set_result(0)
    for record in kafka.records[1:]:
        record.confirmed.set_exception(KafkaUnavailableError("away"))

    assert await one == {}
    for failed in (both, other):
        with pytest.raises(KafkaUnavailableError):
            await failed


async def test_a_record_is_sent_when_it_has_enough_bytes_and_never_exceeds_the_largest() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka, batch_wait_s=5.0, batch_bytes=100_000, record_bytes_max=150_000)

    for _ in range(20):
        batcher.add("a", request_of(*[with_long_value(n, 2000) for n in range(1, 100)]).SerializeToString())

    assert len(kafka.records) > 10  # without waiting for the clock
    assert all(len(record.value) <= 150_000 for record in kafka.records)
    batcher.flush()


async def test_rejected_spans_are_told_to_the_request_that_sent_them() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka)
    good = batcher.add("a", payload_of(1))
    bad = batcher.add("a", request_of(span_of(2), span_of(3, span_id=b"")).SerializeToString())
    only_bad = batcher.add("a", request_of(span_of(3, trace_id=b"")).SerializeToString())
    batcher.flush()
    kafka.confirm_all()

    assert await good == {}
    assert await bad == {"span ID is not 8 bytes": 1}
    assert await only_bad == {"trace ID is empty": 1}


async def test_a_request_whose_resource_copies_take_too_much_fails_alone() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka, output_bytes_max=300_000)
    large = request_of(*[span_of(n) for n in range(1, 40)])
    large.resource_spans[0].resource.attributes[0].value.string_value = "r" * 100_000
    good, too_large = batcher.add("a", payload_of(1)), batcher.add("a", large.SerializeToString())
    batcher.flush()
    kafka.confirm_all()

    assert await good == {}
    with pytest.raises(RequestTooLargeError):
        await too_large


async def test_with_many_tenants_a_record_waits_longer_up_to_a_limit() -> None:
    batcher = batcher_of(Kafka(), batch_tenants_free=2, batch_wait_s=0.01, batch_wait_max_s=0.04)
    assert batcher.wait_s() == 0.01

    for tenant in range(4):
        batcher.add(str(tenant), payload_of(1))
    assert batcher.wait_s() == pytest.approx(0.02)
    for tenant in range(100):
        batcher.add(str(tenant), payload_of(1))

    assert batcher.wait_s() == 0.04
    batcher.flush()


async def test_once_closed_nothing_waits_for_company() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka, batch_wait_s=5.0)
    first = batcher.add("a", payload_of(1))

    batcher.close()
    second = batcher.add("a", payload_of(2))

    assert len(kafka.records) == 2
    kafka.confirm_all()
    await asyncio.gather(first, second)


async def test_a_sender_that_hangs_up_leaves_the_others_their_answer() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka)
    gone, stays = batcher.add("a", payload_of(1)), batcher.add("a", payload_of(1))

    gone.cancel()
    batcher.flush()
    kafka.confirm_all()

    assert await stays == {}


async def test_a_request_without_spans_is_acknowledged_without_a_record() -> None:
    kafka = Kafka()
    batcher = batcher_of(kafka)

    outcome = batcher.add("a", b"")
    batcher.flush()

    assert await outcome == {}
    assert kafka.records == []
