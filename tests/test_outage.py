"""The store, then Kafka, stopped under a worker and started again: it waits, goes on by itself, loses nothing."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.commands.local_run import is_ready
from infra.process import ChildProcess
from infra.stack import LocalStack
from pipeline.store.objects import ObjectStore
from tests.metrics import metric
from tests.queriers import querier, receiver
from tests.test_kill_and_rebalance import Load
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_committed, everything_is_stored, stored_span_ids
from topics import admin, spans_by_trace
from topics.errors import KafkaUnavailableError, StoreUnavailableError
from topics.settings import Settings, StackSettings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
STOP_S = 30.0
SESSION_S = 6  # of the tests' workers


@contextmanager
def hung(child: ChildProcess) -> Iterator[None]:
    """With all that it started."""
    assert child.pid is not None
    os.killpg(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(child.pid, signal.SIGCONT)


def kafka_answers(settings: Settings) -> bool:
    try:
        return bool(admin.watermarks(settings, spans_by_trace.TOPIC))
    except KafkaUnavailableError:
        return False


def store_answers(store: ObjectStore) -> bool:
    try:
        store.ensure_buckets()
    except StoreUnavailableError:
        return False
    return True


def post(url: str, span: int, status: int) -> httpx.Response:
    """Send one span, whose ID is `span`; the receiver must answer with this status."""
    data = TracesData()
    one = data.resource_spans.add().scope_spans.add().spans.add(name="s", kind=1)
    one.trace_id, one.span_id = span.to_bytes(16, "big"), span.to_bytes(8, "big")
    one.start_time_unix_nano = one.end_time_unix_nano = 1_700_000_000_000_000_000
    headers = {"Content-Type": "application/x-protobuf"}
    answer = httpx.post(f"{url}/v1/traces", content=data.SerializeToString(), headers=headers, timeout=120)
    assert answer.status_code == status, answer.text
    return answer


class Parts(NamedTuple):
    """Kafka and MinIO of a test's own, a receiver, and workers of which none runs yet."""

    settings: Settings
    kafka: ChildProcess
    minio: ChildProcess
    store: ObjectStore
    otlp: str
    workers: Workers
    load: Load


@contextmanager
def own_parts(folder: Path) -> Iterator[Parts]:
    stack = StackSettings(data_dir=folder / "stack", kafka_port=0, kafka_controller_port=0, store_port=0, store="minio")
    wanted = Settings(stack=stack, store=StoreSettings(buckets=("outage-a", "outage-b")))
    with LocalStack(wanted, print) as running:
        kafka, minio = (next(role.child for role in running.roles if role.name == name) for name in ("kafka", "store"))
        settings, store = running.settings, ObjectStore(running.settings.store)
        admin.ensure(settings)
        store.ensure_buckets()
        with receiver(settings, folder) as otlp, Workers(settings, folder) as workers:
            yield Parts(settings, kafka, minio, store, otlp, workers, Load(settings))


def test_receiver_and_worker_outlive_the_store_and_kafka(tmp_path: Path) -> None:
    with own_parts(tmp_path) as (settings, kafka, minio, store, otlp, workers, load):
        url = workers.start("one")
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 60, "all is stored")

        assert minio.stop(STOP_S)
        waits = metric(url, "spanstream_worker_waits_total")
        load.send(20)
        wait_until(lambda: metric(url, "spanstream_worker_spans_total") >= len(load.sent), 60, "all is taken")
        wait_until(lambda: metric(url, "spanstream_worker_waits_total") > waits, 60, "the worker waits")
        minio.start()
        wait_until(lambda: store_answers(store), 60, "the store answers again")
        wait_until(lambda: everything_is_stored(store, settings), 60, "what waited is stored")

        post(otlp, 1, 200)
        assert kafka.stop(STOP_S)
        refused = post(otlp, 2, 503)
        assert int(refused.headers["Retry-After"]) >= 1
        wait_until(lambda: not is_ready(otlp), 60, "the receiver says that it is not ready")
        assert is_ready(url)  # the worker still answers what it holds
        tables = httpx.get(f"{url}/tables/partitions", timeout=60)
        assert tables.status_code == 503, tables.text
        assert "Kafka" in tables.json()["error"]
        kafka.start()
        wait_until(lambda: kafka_answers(settings), 60, "Kafka answers again")
        wait_until(lambda: is_ready(otlp), 60, "the receiver is ready again")
        post(otlp, 3, 200)
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 90, "the worker reads on")
        wait_until(lambda: everything_is_committed(settings), 30, "and commits")

        assert workers.running["one"].poll() is None  # the same process all the time
        stored = stored_span_ids(store, settings)
        unanswered = (2).to_bytes(8, "big")  # was refused, and may have reached Kafka all the same
        assert stored - Counter({unanswered: 1}) == Counter([*load.sent, *(n.to_bytes(8, "big") for n in (1, 3))])


def found_in(url: str) -> tuple[set[bytes], bool]:
    """What a search finds, and whether the answer says that it is complete."""
    params = {"q": '{ name = "s" }', "start": 1_699_999_000, "end": 1_700_001_000, "limit": 1000}
    answer = httpx.get(f"{url}/api/search", params=params, timeout=60)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return {bytes.fromhex(one["traceID"]) for one in found["traces"]}, found.get("status") != "PARTIAL"


def test_while_the_store_hangs_what_is_live_is_told_in_time_and_a_querier_stops(tmp_path: Path) -> None:
    with own_parts(tmp_path) as (settings, _kafka, minio, store, _otlp, workers, load), ExitStack() as until_the_end:
        workers.start("one")
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 60, "all is stored")
        workers.end("one", signal.SIGTERM)
        workers.start(
            "one", variables={"SPANSTREAM_WORKER_SEAL_AGE_S": "900", "SPANSTREAM_WORKER_SEAL_SPANS": "100000"}
        )
        (stored, _), sent = load.traces[0], {trace_id for trace_id, _ in load.traces}
        load.send(5)
        live = {trace_id for trace_id, _ in load.traces} - sent
        times = {"store_timeout_s": 1.0, "query_timeout_s": 20.0, "catalog_refresh_s": 0.5, "warm_up_s_max": 0.0}
        asked = settings.model_copy(update={"querier": settings.querier.model_copy(update=times)})
        with querier(asked, tmp_path) as url:
            with hung(minio):
                wait_until(lambda: live <= found_in(url)[0], 60, "the live traces are found")
                found, complete = found_in(url)
                assert found == live
                assert not complete
                for route in ("traces", "v2/traces"):  # nothing can be said about a trace that is not live
                    answer = httpx.get(f"{url}/api/{route}/{stored.hex()}", timeout=60)
                    assert answer.status_code == 503, answer.text
                    assert "the store does not answer" in answer.text
            wait_until(lambda: found_in(url) == (live | sent, True), 60, "all is found again")

            until_the_end.enter_context(hung(minio))
            time.sleep(1)  # the catalog asks it by then
            began = time.monotonic()
        assert time.monotonic() - began < 25


def test_while_kafka_hangs_one_question_waits_for_it_and_a_worker_stops(tmp_path: Path) -> None:
    with own_parts(tmp_path) as (settings, kafka, _minio, store, _otlp, workers, load):
        workers.start("one")
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 60, "all is stored")
        sent = {trace_id for trace_id, _ in load.traces}
        own = settings.querier.model_copy(update={"kafka_timeout_s": 4.0})
        with querier(settings.model_copy(update={"querier": own}), tmp_path) as url:
            wait_until(lambda: found_in(url) == (sent, True), 60, "all is found")
            with hung(kafka):
                assert found_in(url) == (sent, False)
                began = time.monotonic()
                for _ in range(5):
                    assert found_in(url) == (sent, False)
                assert time.monotonic() - began < 16
                workers.end("one", signal.SIGTERM)  # within half a minute
            wait_until(lambda: found_in(url) == (sent, True), 60, "Kafka tells again where the topic ends")


def test_a_store_and_a_kafka_that_hang_longer_than_a_session_end_nobody(tmp_path: Path) -> None:
    with own_parts(tmp_path) as (settings, kafka, minio, store, otlp, workers, load):
        url = workers.start("one")
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 60, "all is stored")

        with hung(minio):
            load.send(20)
            wait_until(lambda: metric(url, "spanstream_worker_spans_total") >= len(load.sent), 60, "all is taken")
            time.sleep(SESSION_S + 2)
        wait_until(lambda: everything_is_stored(store, settings), 60, "what hung is stored")
        loads = (tmp_path / "one.log").read_text().count('"partition_loaded"')
        assert loads == settings.kafka.partitions  # a put that hangs does not keep a worker from its group

        with hung(kafka):
            time.sleep(SESSION_S + 4)
        wait_until(lambda: kafka_answers(settings), 60, "Kafka answers again")
        post(otlp, 1, 200)
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 90, "the worker reads on")
        wait_until(lambda: everything_is_committed(settings), 30, "and commits")

        assert workers.running["one"].poll() is None
        assert stored_span_ids(store, settings) == Counter([*load.sent, (1).to_bytes(8, "big")])
