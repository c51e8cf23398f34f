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
from tests.pipeline.store.faulty import FAULTS, faulty
from topics.errors import FormatVersionError, MalformedRecordError, StoreConflictError
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


def sealed(
    first: int, last: int, tenants: dict[str, list[int]] | None = None, time: int = NOW, topic: str = "spans_by_trace"
) -> SealedRange:
    return SealedRange(
        topic=topic,
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


REQUESTS_OF_A_COMMIT = 7  # three to see whether the store refuses second puts, three objects, the manifest


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("spoiled", range(REQUESTS_OF_A_COMMIT))
def test_whichever_request_fails_the_range_is_stored_once(
    store: ObjectStore, store_settings: StoreSettings, spoiled: int, fault: str
) -> None:
    with faulty(store_settings) as (proxy, settings):
        proxy.spoil = lambda number, *_: fault if number == spoiled else ""
        behind = ObjectStore(settings)
        stored = put(behind, sealed(0, 9))
        behind.close()

    assert stored is not None
    assert commit.read_mark(store, "spans_by_trace", 3).newest == stored
    (entry,) = stored.chunks
    left = {name for name in names(store) if not name.startswith("probe/")}
    assert left == {stored.name, entry.name, entry.traces_name, entry.filter_name}


def test_a_commit_makes_as_many_requests_as_the_test_above_spoils(store_settings: StoreSettings) -> None:
    with faulty(store_settings) as (proxy, settings):
        behind = ObjectStore(settings)
        put(behind, sealed(0, 9))
        first, _ = proxy.seen, proxy.start_over(lambda *_: "")
        put(behind, sealed(10, 19))
        behind.close()

    assert (len(first), len(proxy.seen)) == (REQUESTS_OF_A_COMMIT, 4)


def test_a_refusal_without_a_manifest_is_put_again_not_given_up(store: ObjectStore) -> None:
    class Busy(ObjectStore):
        refusals = 2

        def put_if_absent(self, bucket: str, name: str, data: bytes) -> None:
            if name.startswith("manifests/") and self.refusals:
                self.refusals -= 1
                raise StoreConflictError("another put is under way")
            super().put_if_absent(bucket, name, data)

    busy = Busy(store.settings)
    stored = put(busy, sealed(0, 9))
    busy.close()

    assert stored is not None
    assert commit.read_mark(store, "spans_by_trace", 3).newest == stored


def test_a_store_without_conditional_puts_still_keeps_the_first_manifest(store_settings: StoreSettings) -> None:
    with faulty(store_settings) as (proxy, settings):
        proxy.ignores_conditions = True
        store = ObjectStore(settings)
        outcomes = [put(store, sealed(0, 9)), put(store, sealed(0, 12))]
        mark = commit.read_mark(store, "spans_by_trace", 3).mark
        store.close()

    assert [one is not None for one in outcomes] == [True, False]
    assert mark == 10


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


@pytest.mark.parametrize(("keys_max", "first"), [(1000, 0), (9, 1), (6, 2), (2, 2)])
def test_the_window_goes_back_to_no_more_keys_than_it_may_have_beyond_the_newest_range(
    store: ObjectStore, keys_max: int, first: int
) -> None:
    for number in range(3):
        assert put(store, sealed(number, number, {"shop": [number * 10 + one for one in range(4)]}))
    assert put(store, sealed(3, 3, {}, time=0))
    found = commit.read_mark(store, "spans_by_trace", 3)

    window = list(commit.window_spans(store, found, window_s=900, keys_max=keys_max))

    assert [manifest.first for manifest, _ in window] == list(range(first, 3))


def test_ranges_without_records_neither_begin_nor_end_the_window(store: ObjectStore) -> None:
    times = [NOW, NOW + 300 * SECOND, 0, NOW + 310 * SECOND, 0]
    for number, time in enumerate(times):
        assert put(store, sealed(number, number, {} if time == 0 else {"shop": [number]}, time=time))
    found = commit.read_mark(store, "spans_by_trace", 3)

    window = list(commit.window_spans(store, found, window_s=60, keys_max=1000))

    assert [manifest.first for manifest, _ in window] == [1, 3]


def test_a_manifest_of_a_later_format_is_refused_with_a_sentence(store: ObjectStore) -> None:
    stored = put(store, sealed(0, 9))
    assert stored is not None
    later = stored.to_json().replace(b'"format":1', b'"format":2')

    with pytest.raises(FormatVersionError, match="upgrade"):
        Manifest.from_json(later)
    assert Manifest.from_json(stored.to_json()) == stored


def test_a_damaged_chunk_is_left_out_of_the_window_and_stops_nothing(store: ObjectStore) -> None:
    first = put(store, sealed(0, 4, {"shop": [1, 2]}))
    put(store, sealed(5, 9, {"shop": [3]}))
    assert first is not None
    entry = first.chunks[0]
    content = store.get(entry.bucket, entry.name) or b""
    store.put(entry.bucket, entry.name, content[: len(content) // 2] + b"\xff" * 40, "application/octet-stream")

    found = commit.read_mark(store, "spans_by_trace", 3)
    window = list(commit.window_spans(store, found, window_s=900, keys_max=1000))

    assert [manifest.first for manifest, _ in window] == [5]
    assert found.mark == 10


def test_a_damaged_manifest_is_left_out_of_the_window_and_the_newest_says_its_name(store: ObjectStore) -> None:
    stored = [put(store, sealed(first, first + 4, {"shop": [first + 1]})) for first in (0, 5, 10)]
    store.put(store.buckets[0], stored[1].name, b"garbage", "application/json")  # type: ignore[union-attr]

    found = commit.read_mark(store, "spans_by_trace", 3)
    window = list(commit.window_spans(store, found, window_s=900, keys_max=1000))
    store.put(store.buckets[0], stored[2].name, b"garbage", "application/json")  # type: ignore[union-attr]

    assert ([manifest.first for manifest, _ in window], found.mark) == ([0, 10], 15)
    with pytest.raises(MalformedRecordError, match=r"/00000000000000000010\.json"):
        commit.read_mark(store, "spans_by_trace", 3)
