"""The tail of a partition is read from a real Kafka: exactly [after, end), bounded, without decoding all of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.query.tail import TailRead, TailReader
from tests.damaged_batches import DAMAGES, write_damaged
from tests.kafka_run import running_kafka
from tests.pipeline.query.world import OneSpan, otlp, rows, segment, trace_id
from tests.waiting import wait_until
from topics import admin, spans_by_trace
from topics.errors import KafkaUnavailableError
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, QuerierSettings, Settings
from topics.topic import full_name

pytestmark = pytest.mark.integration
PARTITIONS = 4
BROKER_SESSION_S = 9  # broker.session.timeout.ms
MINE = [number for number in range(1, 200) if partition_of(trace_id(number), PARTITIONS) == 1]


@pytest.fixture
def world(kafka_settings: KafkaSettings) -> Settings:
    made = Settings(kafka=kafka_settings, querier=QuerierSettings(tail_bytes_max=1 << 20))
    admin.ensure(made)
    return made


def write(world: Settings, values: list[bytes], partition: int = 1) -> None:
    producer = Producer(admin.client_config(world.kafka) | {"compression.type": "zstd", "enable.idempotence": True})
    topic = full_name(spans_by_trace.TOPIC, world.kafka)
    for value in values:
        producer.produce(topic, value, partition=partition, headers=spans_by_trace.headers_of("single-tenant", 1))
    assert producer.flush(10) == 0


def ids(found: TailRead) -> list[int]:
    tables = [each.read(["span_id"]) for each in found.segments]
    return [int.from_bytes(each) for table in tables for each in table.column("span_id").to_pylist()]


def test_the_tail_is_every_span_from_an_offset_to_the_end(world: Settings) -> None:
    write(world, [otlp([OneSpan(MINE[0], n + 1)]) for n in range(20)])
    reader = TailReader(world, PARTITIONS)

    ends = reader.ends([0, 1])
    found = reader.read({0: 0, 1: 15}, ends, {})

    assert ends == {0: (0, 0), 1: (0, 20)}
    assert ids(found[1]) == [16, 17, 18, 19, 20]
    assert (found[1].reached, found[1].reasons, found[0].segments) == (20, [], [])
    reader.close()


def test_records_that_come_later_are_not_waited_for(world: Settings) -> None:
    write(world, [otlp([OneSpan(MINE[0], 1)])])
    reader = TailReader(world, PARTITIONS)
    ends = reader.ends([1])
    write(world, [otlp([OneSpan(MINE[0], 2)])])

    assert ids(reader.read({1: 0}, ends, {})[1]) == [1]
    reader.close()


def test_one_trace_is_found_among_records_that_are_no_otlp(world: Settings) -> None:
    noise = [b"\xffno otlp" * 100, b"", otlp([OneSpan(MINE[1], 7)])]
    write(world, [*noise, otlp([OneSpan(MINE[0], 1), OneSpan(MINE[1], 2)]), *noise, otlp([OneSpan(MINE[0], 3)])])
    reader = TailReader(world, PARTITIONS)

    found = reader.read_trace({1: 0}, reader.ends([1]), trace_id(MINE[0]))[1]

    assert ids(found) == [1, 3]
    assert found.records == 8
    reader.close()


def test_copies_are_given_once_and_known_spans_not_at_all(world: Settings) -> None:
    one, two, three = (OneSpan(MINE[0], n) for n in (1, 2, 3))
    write(world, [otlp([one]), otlp([two, one]), otlp([three, two])])
    reader = TailReader(world, PARTITIONS)
    held = segment(0, 0, rows({0: [one]}))

    assert ids(reader.read({1: 1}, reader.ends([1]), {1: [held]})[1]) == [2, 3]
    reader.close()


def test_more_bytes_than_allowed_are_told_with_the_offset_reached(world: Settings) -> None:
    filler = "x" * 300_000
    write(world, [otlp([OneSpan(MINE[0], n + 1, attributes=(("filler", filler),))]) for n in range(8)])
    reader = TailReader(world, PARTITIONS)

    found = reader.read({1: 0}, reader.ends([1]), {})[1]

    assert ids(found) == [1, 2, 3]
    assert found.reached == 3
    assert "offset 3 of 8" in found.reasons[0]
    assert "querier.tail_bytes_max" in found.reasons[0]
    whole = reader.read_trace({1: 0}, reader.ends([1]), trace_id(MINE[0]))[1]
    assert ids(whole) == [1, 2, 3, 4, 5, 6, 7, 8]
    reader.close()


def test_deleted_offsets_are_named(world: Settings) -> None:
    write(world, [otlp([OneSpan(MINE[0], 1)])])
    reader = TailReader(world, PARTITIONS)

    found = reader.read({1: 0}, {1: (3, 5)}, {})[1]

    assert found.losses == [(0, 2)]
    reader.close()


def test_without_kafka_there_is_a_reason_and_no_error() -> None:
    away = Settings(
        kafka=KafkaSettings(bootstrap_servers="127.0.0.1:9", request_timeout_s=0.2),
        querier=QuerierSettings(tail_timeout_s=0.3),
    )
    reader = TailReader(away, PARTITIONS)

    found = reader.read({1: 0}, {1: (0, 5)}, {})[1]

    assert found.reached == 0
    assert "offset 0 of 5" in found.reasons[0]
    reader.close()


def test_a_small_tail_is_read_in_milliseconds(world: Settings) -> None:
    write(world, [otlp([OneSpan(MINE[0], n + 1)]) for n in range(3)])
    reader = TailReader(world, PARTITIONS)
    reader.read({1: 0}, reader.ends([1]), {})  # connects

    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        reader.read({1: 0}, reader.ends([1]), {})
        took_s.append(time.perf_counter() - began_s)

    assert min(took_s) < 0.1
    reader.close()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.integers(0, 12), end=st.integers(0, 12))
def test_any_range_is_read_exactly(world: Settings, after: int, end: int) -> None:
    reader = TailReader(world, PARTITIONS)
    if reader.ends([1])[1][1] == 0:
        write(world, [otlp([OneSpan(MINE[0], n + 1)]) for n in range(12)])

    found = reader.read({1: after}, {1: (0, end)}, {})[1]

    assert ids(found) == list(range(after + 1, end + 1))
    reader.close()


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "header_name"])
def test_a_batch_that_cannot_be_read_ends_the_tail_with_a_reason_before_it(
    damage: str, world: Settings, real_parts_dir: Path
) -> None:
    write(world, [otlp([OneSpan(MINE[0], 1)])])
    write_damaged(world.kafka, real_parts_dir / "kafka" / "logs", 1, damage, otlp([OneSpan(MINE[0], 2)] * 20))
    write(world, [otlp([OneSpan(MINE[0], 3)])])
    reader = TailReader(world, PARTITIONS)

    found = reader.read({1: 0}, reader.ends([1]), {})[1]

    assert (ids(found), found.reached) == ([1], 1)
    assert found.reasons[0].startswith("partition 1 was read from Kafka up to offset 1 of 3: ")
    reader.close()


def test_a_record_whose_headers_cannot_be_read_is_passed_as_workers_do(world: Settings, real_parts_dir: Path) -> None:
    write(world, [otlp([OneSpan(MINE[0], 1)])])
    write_damaged(world.kafka, real_parts_dir / "kafka" / "logs", 1, "header_name", otlp([OneSpan(MINE[0], 2)] * 20))
    write(world, [otlp([OneSpan(MINE[0], 3)])])
    reader = TailReader(world, PARTITIONS)

    found = reader.read({1: 0}, reader.ends([1]), {})[1]

    assert (ids(found), found.reached, found.reasons) == ([1, 3], 3, [])
    reader.close()


@pytest.mark.timeout(150)
def test_after_a_broker_hung_beyond_its_session_tails_and_owners_are_told_as_before(tmp_path: Path) -> None:
    """It leads on in a new epoch; a client that is kept may ask by the old one for ever."""
    with running_kafka(tmp_path / "kafka", tmp_path / "kafka.log", heap_mb=256) as (bootstrap_servers, broker):
        kafka = KafkaSettings(bootstrap_servers=bootstrap_servers, partitions=PARTITIONS, request_timeout_s=5)
        world = Settings(kafka=kafka)
        admin.ensure(world)
        write(world, [otlp([OneSpan(MINE[0], n + 1)]) for n in range(3)])
        reader = TailReader(world, PARTITIONS)

        def told() -> bool:
            try:
                found = reader.read({1: 0}, reader.ends([1]), {})[1]
                return (admin.group_owners(world), ids(found), found.reasons) == ({}, [1, 2, 3], [])
            except KafkaUnavailableError:
                return False

        assert told()
        assert broker.pid is not None
        os.killpg(broker.pid, signal.SIGSTOP)
        time.sleep(1.5 * BROKER_SESSION_S)  # the controller, which hangs as well, goes by its clock
        os.killpg(broker.pid, signal.SIGCONT)

        def told_at_once() -> bool:
            began_s = time.monotonic()
            return all(told() for _ in range(5)) and time.monotonic() - began_s < 4

        wait_until(told_at_once, 40)
        reader.close()
