"""The commit on a real MinIO: of several attempts at a range one stands, whatever answers are lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.partition.sealed import SealedRange
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.store import commit
from pipeline.store.chunk import read_chunk
from pipeline.store.manifest import Manifest
from pipeline.store.objects import ObjectStore
from topics.errors import FormatVersionError, StoreConflictError, StoreUnavailableError
from topics.settings import Settings, StoreSettings

pytestmark = pytest.mark.integration
NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


@pytest.fixture
def store(store_settings: StoreSettings) -> Iterator[ObjectStore]:
    opened = ObjectStore(store_settings)
    yield opened
    opened.close()


def spans_of(tenants: dict[str, list[int]]) -> pa.Table:
    records = []
    for offset, (tenant, span_ids) in enumerate(tenants.items()):
        data = TracesData()
        scope = data.resource_spans.add().scope_spans.add()
        for span_id in span_ids:
            span = Span(trace_id=b"t" * 16, span_id=span_id.to_bytes(8, "big"), start_time_unix_nano=NOW)
            scope.spans.append(span)
        records.append(Record(tenant, offset, data.SerializeToString()))
    return decode(records, attribute_columns_max=10).spans


def sealed(first: int, last: int, tenants: dict[str, list[int]] | None = None, time: int = NOW) -> SealedRange:
    return SealedRange(
        topic="spans_by_trace",
        partition=3,
        partitions=8,
        first=first,
        last=last,
        spans=spans_of({"shop": [1, 2]} if tenants is None else tenants),
        record_time_min_unix_ns=time,
        record_time_max_unix_ns=time,
    )


def put(store: ObjectStore, one: SealedRange, stop: threading.Event | None = None) -> Manifest | None:
    settings = Settings(store=store.settings)
    return commit.store_range(store, settings, one, worker="http://w", now_unix_ns=NOW, stop=stop or threading.Event())


def names(store: ObjectStore) -> set[str]:
    return {one.name for bucket in store.buckets for one in store.list(bucket, "")}


class LosesAnswers(ObjectStore):
    """A store whose conditional puts arrive, but whose answer is lost; or that never arrive."""

    arrives = True

    def put_if_absent(self, bucket: str, name: str, data: bytes) -> None:
        if self.arrives:
            super().put_if_absent(bucket, name, data)
        self.arrives = True
        raise StoreUnavailableError("answer lost")


def test_minio_refuses_the_second_writer(store: ObjectStore) -> None:
    store.put_if_absent(store.buckets[0], "once", b"1")

    with pytest.raises(StoreConflictError):
        store.put_if_absent(store.buckets[0], "once", b"2")

    assert store.get(store.buckets[0], "once") == b"1"
    assert store.conditional_put_works()


def test_of_many_attempts_at_a_range_one_stands_and_the_others_leave_nothing(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: put(store, sealed(0, 9)), range(8)))

    (winner,) = [one for one in outcomes if one is not None]
    found = commit.read_mark(store, "spans_by_trace", 3)
    assert (found.mark, found.newest) == (10, winner)
    (entry,) = winner.chunks
    assert names(store) == {winner.name, entry.name, entry.traces_name, entry.filter_name}


@pytest.mark.parametrize("arrives", [True, False])
def test_a_lost_answer_is_settled_by_reading_the_manifest(store_settings: StoreSettings, arrives: bool) -> None:
    store = LosesAnswers(store_settings)
    store.arrives = arrives

    stored = put(store, sealed(0, 9))

    assert stored is not None
    assert commit.read_mark(store, "spans_by_trace", 3).newest == stored


def test_each_tenant_has_a_chunk_of_its_own(store: ObjectStore) -> None:
    stored = put(store, sealed(0, 1, {"shop": [1, 2], "bank": [3]}))

    assert stored is not None
    read = {entry.tenant: read_chunk(store.get(entry.bucket, entry.name) or b"").num_rows for entry in stored.chunks}
    assert read == {"bank": 1, "shop": 2}
    assert all(entry.name.startswith(f"chunks/{entry.tenant}/2023-11-14/") for entry in stored.chunks)


def test_a_range_without_spans_is_stored_too(store: ObjectStore) -> None:
    stored = put(store, sealed(0, 4, {}))

    assert stored is not None
    assert commit.read_mark(store, "spans_by_trace", 3).mark == 5


def test_a_stop_ends_the_waiting_for_a_store_that_is_away(store_settings: StoreSettings) -> None:
    store, stop = ObjectStore(store_settings.model_copy(update={"endpoint": "http://127.0.0.1:9"})), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(put, store, sealed(0, 9), stop)
        stop.set()

        assert waiting.result(timeout=20) is None


def test_the_window_goes_back_as_far_as_its_record_time(store: ObjectStore) -> None:
    for number in range(4):
        assert put(store, sealed(number, number, {"shop": [number]}, time=NOW + number * 60 * SECOND))
    found = commit.read_mark(store, "spans_by_trace", 3)

    window = list(commit.window_spans(store, found, window_s=130, keys_max=1000))

    assert [manifest.first for manifest, _ in window] == [1, 2, 3]
    assert {name for _, spans in window for name in spans.column_names} == {"trace_id", "span_id", "kind", "tenant"}


def test_a_manifest_of_a_later_format_is_refused_with_a_sentence(store: ObjectStore) -> None:
    stored = put(store, sealed(0, 9))
    assert stored is not None
    later = stored.to_json().replace(b'"format":1', b'"format":2')

    with pytest.raises(FormatVersionError, match="upgrade"):
        Manifest.from_json(later)
    assert Manifest.from_json(stored.to_json()) == stored
