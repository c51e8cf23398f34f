"""The catalog: what counts as stored, which chunks a question opens, and what that costs with very many."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import trace_filter
from pipeline.store.catalog import Catalog
from pipeline.store.manifest import ChunkEntry, Manifest
from pipeline.store.objects import ObjectInfo
from topics.errors import FormatVersionError, MalformedRecordError

TOPIC = "spans_by_trace"
SECOND = 1_000_000_000


class Bucket:
    """The objects of a store, in memory: what a catalog lists and reads."""

    buckets = ("first",)

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads: list[str] = []

    def keep(self, one: Manifest) -> None:
        self.objects[one.name] = one.to_json()

    def manifests(self) -> list[Manifest]:
        return [Manifest.from_json(content) for name, content in self.objects.items() if name.endswith(".json")]

    def list(self, _bucket: str, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        for name in sorted(self.objects):
            if name.startswith(prefix) and name > start_after:
                yield ObjectInfo(name, len(self.objects[name]), None)  # type: ignore[arg-type]

    def get(self, _bucket: str, name: str) -> bytes | None:
        self.reads.append(name)
        return self.objects.get(name)


def bucket_with(one: Manifest) -> Bucket:
    bucket = Bucket()
    bucket.keep(one)
    return bucket


class Opened:
    """A catalog in a folder, closed at the end."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.catalog = Catalog(folder, TOPIC, bucket)  # type: ignore[arg-type]

    def __enter__(self) -> Catalog:
        return self.catalog

    def __exit__(self, *_: object) -> None:
        self.catalog.close()


def entry(number: int, *, tenant: str = "shop", outliers: tuple[tuple[str, int], ...] = ()) -> ChunkEntry:
    """A chunk of the second `number`."""
    return ChunkEntry(
        tenant=tenant,
        bucket="first",
        name=f"chunk-{number}",
        traces_name="",
        filter_name=f"filter-{number}",
        bytes=1,
        spans=1,
        traces=1,
        start_min_unix_ns=number * SECOND,
        start_max_unix_ns=number * SECOND + 10,
        end_max_unix_ns=number * SECOND + 20,
        outliers=outliers,
        services={"web": {"GET /": 2}},
        attributes={"span.http.route": 1},
    )


def manifest(first: int, last: int, *chunks: ChunkEntry, partition: int = 0, token: str = "t") -> Manifest:
    return Manifest(
        topic=TOPIC,
        partition=partition,
        partitions=8,
        first=first,
        last=last,
        token=token,
        worker="w",
        written_unix_ns=0,
        record_time_min_unix_ns=0,
        record_time_max_unix_ns=0,
        chunks=chunks,
    )


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def catalog(tmp_path: Path, bucket: Bucket) -> Iterator[Catalog]:
    opened = Catalog(tmp_path, TOPIC, bucket)  # type: ignore[arg-type]
    yield opened
    opened.close()


def test_only_the_gap_free_run_of_manifests_counts_as_stored(catalog: Catalog) -> None:
    catalog.refresh(0)

    catalog.apply(manifest(0, 9))
    catalog.apply(manifest(20, 29))
    with_a_gap = catalog.horizons()
    catalog.apply(manifest(10, 19))

    assert (with_a_gap, catalog.horizons()) == ({0: 10}, {0: 30})


def test_before_the_bucket_was_listed_nothing_counts_as_stored(catalog: Catalog, bucket: Bucket) -> None:
    for one in (manifest(0, 9), manifest(10, 19)):
        bucket.keep(one)

    catalog.apply(manifest(10, 19))  # from the topic; whether it is the first one, only the bucket knows
    unlisted = catalog.horizons()
    catalog.refresh(0)

    assert (unlisted, catalog.horizons()) == ({}, {0: 20})


def test_a_bucket_whose_oldest_manifests_retention_took_begins_where_it_begins(
    catalog: Catalog, bucket: Bucket
) -> None:
    bucket.keep(manifest(50, 59))

    catalog.refresh(0)

    assert catalog.horizons() == {0: 60}


def test_an_empty_catalog_is_rebuilt_from_the_bucket_and_one_that_is_behind_goes_on(
    tmp_path: Path, bucket: Bucket
) -> None:
    for number in range(300):
        bucket.keep(manifest(number * 10, number * 10 + 9, entry(number)))

    with Opened(tmp_path, bucket) as catalog:
        catalog.refresh(0)
        rebuilt = catalog.horizons(), len(catalog.chunks_for("shop", 0, 1000 * SECOND))
        bucket.keep(manifest(3000, 3009, entry(300)))
        bucket.reads.clear()
        catalog.refresh(0)
        behind = catalog.horizons(), list(bucket.reads)
    with Opened(tmp_path, bucket) as catalog:
        bucket.reads.clear()
        catalog.refresh(0)
        again = catalog.horizons(), len(bucket.reads)

    assert rebuilt == ({0: 3000}, 300)
    assert behind == ({0: 3010}, [manifest(3000, 3009).name])
    assert again == ({0: 3010}, 1)  # the newest, to see that it is the same bucket


def test_a_catalog_of_another_bucket_is_emptied(tmp_path: Path, bucket: Bucket) -> None:
    with Opened(tmp_path, bucket) as catalog:
        for number in range(3):
            bucket.keep(manifest(number * 10, number * 10 + 9, entry(number)))
        bucket.keep(manifest(0, 9, entry(9), partition=1))
        for partition in (0, 1):
            catalog.refresh(partition)
    for other in (Bucket(), bucket_with(manifest(0, 9, entry(7), token="another"))):
        with Opened(tmp_path, other) as catalog:
            catalog.refresh(0)
            found = [one.name for one in catalog.chunks_for("shop", 0, 1000 * SECOND)]
            services, listed = catalog.services("shop"), (catalog.listed(0), catalog.listed(1))

        assert found == [one.name for kept in other.manifests() for one in kept.chunks]
        assert services == ({"web": {"GET /": 2}} if found else {})
        assert listed == (True, False)  # partition 1 was compared with a catalog that is no more


def test_manifests_that_retention_took_are_left_out_and_the_others_stay(tmp_path: Path, bucket: Bucket) -> None:
    with Opened(tmp_path, bucket) as catalog:
        for number in range(4):
            bucket.keep(manifest(number * 10, number * 10 + 9, entry(number)))
        catalog.refresh(0)
    for number in range(2):
        del bucket.objects[manifest(number * 10, 0).name]

    with Opened(tmp_path, bucket) as catalog:
        catalog.refresh(0)
        found = [one.name for one in catalog.chunks_for("shop", 0, 1000 * SECOND)]
        horizons = catalog.horizons()
    with Opened(tmp_path, bucket) as catalog:
        opened = catalog.count()

    assert (found, horizons, opened) == (["chunk-2", "chunk-3"], {0: 40}, 2)


LATER = manifest(10, 19).to_json().replace(b'"format":1', b'"format":2')


def test_a_manifest_of_a_later_version_stops_the_horizon_before_it_and_no_other(
    catalog: Catalog, bucket: Bucket
) -> None:
    for number in range(4):
        bucket.keep(manifest(number * 10, number * 10 + 9, entry(number)))
    bucket.objects[manifest(10, 19).name] = LATER

    with pytest.raises(FormatVersionError, match=r"00010\.json"):
        catalog.refresh(0)
    stopped = catalog.horizons(), catalog.count(), catalog.unread(0)
    bucket.keep(manifest(10, 19, entry(1)))
    catalog.refresh(0)

    assert (stopped, catalog.horizons()) == (({0: 10}, 3, []), {0: 40})


def test_a_damaged_manifest_hides_its_own_chunks_only_and_is_named_until_it_is_restored(
    catalog: Catalog, bucket: Bucket
) -> None:
    for number in range(4):
        bucket.keep(manifest(number * 10, number * 10 + 9, entry(number)))
    bucket.objects[manifest(10, 19).name] = b"garbage"

    for _ in range(2):
        with pytest.raises(MalformedRecordError, match=r"00010\.json"):
            catalog.refresh(0)
    without = catalog.horizons(), names(catalog)
    (told,) = catalog.unread(0)
    bucket.keep(manifest(10, 19, entry(1)))
    catalog.refresh(0)

    assert without == ({0: 40}, ["chunk-0", "chunk-2", "chunk-3"])
    assert told.startswith("what is stored of offsets 10 to 19 of partition 0 is not known: manifests/")
    assert (catalog.unread(0), len(names(catalog))) == ([], 4)


def test_a_damaged_manifest_that_is_the_newest_stops_the_horizon(catalog: Catalog, bucket: Bucket) -> None:
    """Where it ends nobody says."""
    bucket.keep(manifest(0, 9))
    bucket.objects[manifest(10, 19).name] = b"garbage"

    with pytest.raises(MalformedRecordError, match=r"00010\.json"):
        catalog.refresh(0)

    assert (catalog.horizons(), catalog.unread(0)) == ({0: 10}, [])


def test_a_catalog_that_is_opened_again_knows_what_it_knew_of_a_manifest_damaged_since(
    tmp_path: Path, bucket: Bucket
) -> None:
    for number in range(3):
        bucket.keep(manifest(number * 10, number * 10 + 9, entry(number)))
    with Opened(tmp_path, bucket) as catalog:
        catalog.refresh(0)
    bucket.objects[manifest(20, 29).name] = b"garbage"

    with Opened(tmp_path, bucket) as catalog:
        catalog.refresh(0)
        found = catalog.horizons(), names(catalog)

    assert found == ({0: 30}, ["chunk-0", "chunk-1", "chunk-2"])


def names(catalog: Catalog) -> list[str]:
    return sorted(one.name for one in catalog.chunks_for("shop", 0, 100 * SECOND))


def test_entries_come_while_filters_are_read_and_questions_are_asked(catalog: Catalog, bucket: Bucket) -> None:
    own = np.full((1, 16), 7, dtype=np.uint8)
    bucket.objects |= {f"filter-{number}": trace_filter.build(own) for number in range(600)}

    def fill() -> None:
        for number in range(600):
            catalog.apply(manifest(number * 10, number * 10 + 9, entry(number)))

    with ThreadPoolExecutor(2) as pool:
        filling = pool.submit(fill)
        while not filling.done():
            catalog.load_filters(7)
            assert len(catalog.chunks_for_trace("shop", 0, own.tobytes())) <= 600
        filling.result()
        while catalog.load_filters(100):
            pass

    assert len(catalog.chunks_for_trace("shop", 0, own.tobytes())) == 600


def test_an_entry_that_only_names_a_long_manifest_is_read_from_the_bucket(catalog: Catalog, bucket: Bucket) -> None:
    one = manifest(0, 9, entry(1))
    bucket.keep(one)

    assert catalog.manifest_of(one.to_entry()) == one
    assert catalog.manifest_of(one.to_entry(bytes_max=10)) == one
    assert catalog.manifest_of(manifest(10, 19).to_entry(bytes_max=10)) is None


def test_an_entry_keeps_the_names_of_its_services_without_their_counts(catalog: Catalog) -> None:
    catalog.apply(manifest(0, 9, entry(1)))

    assert [one.services for one in catalog.chunks_for("shop", 0, 10 * SECOND)] == [{"web": {}}]


def test_an_entry_that_comes_twice_is_taken_once(catalog: Catalog) -> None:
    assert [catalog.apply(manifest(0, 9, entry(1))) for _ in range(2)] == [True, False]
    assert len(catalog.chunks_for("shop", 0, 10 * SECOND)) == 1


def test_chunks_are_chosen_by_tenant_time_and_outliers(catalog: Catalog) -> None:
    catalog.apply(manifest(0, 9, entry(1), entry(1, tenant="bank")))
    catalog.apply(manifest(10, 19, entry(5, outliers=((b"t".hex() * 16, 100 * SECOND),))))

    def found(start_s: int, end_s: int) -> list[int]:
        return [one.start_min_unix_ns // SECOND for one in catalog.chunks_for("shop", start_s * SECOND, end_s * SECOND)]

    assert (found(0, 2), found(2, 4), found(0, 9), found(99, 101)) == ([1], [], [1, 5], [5])


def test_a_chunk_without_its_filter_may_hold_any_trace_and_with_it_only_its_own(
    catalog: Catalog, bucket: Bucket
) -> None:
    own = np.full((1, 16), 7, dtype=np.uint8)
    bucket.objects["filter-1"] = trace_filter.build(own)
    catalog.apply(manifest(0, 9, entry(1)))

    before = catalog.chunks_for_trace("shop", 0, b"\3" * 16)
    while catalog.load_filters(10):
        pass

    assert len(before) == 1
    assert len(catalog.chunks_for_trace("shop", 0, own.tobytes())) == 1
    assert catalog.chunks_for_trace("shop", 0, b"\3" * 16) == []
    assert catalog.chunks_for_trace("shop", 0, own.tobytes(), 50 * SECOND, 60 * SECOND) == []


def test_services_and_attributes_add_up_over_chunks(catalog: Catalog) -> None:
    catalog.apply(manifest(0, 9, entry(1)))
    catalog.apply(manifest(10, 19, entry(2)))

    assert catalog.services("shop") == {"web": {"GET /": 4}}
    assert catalog.attributes("shop") == {"span.http.route": 2}
    assert catalog.services("bank") == {}


def filled(folder: Path, chunks: int) -> tuple[Bucket, Catalog, list[bytes]]:
    """A catalog of so many chunks of 50 traces over 8 partitions, filters loaded; one trace ID of each chunk."""
    bucket, random, ids = Bucket(), np.random.default_rng(5), []
    catalog = Catalog(folder, TOPIC, bucket)  # type: ignore[arg-type]
    for number in range(chunks):
        traces = random.integers(0, 256, (50, 16), dtype=np.uint8)
        bucket.objects[f"filter-{number}"] = trace_filter.build(traces)
        ids.append(traces[0].tobytes())
        first = number // 8 * 10
        catalog.apply(manifest(first, first + 9, entry(number), partition=number % 8))
    while catalog.load_filters(1000):
        pass
    return bucket, catalog, ids


def lookup_s(catalog: Catalog, ids: list[bytes]) -> float:
    start = time.perf_counter()
    for number in range(100):
        assert f"chunk-{number}" in [one.name for one in catalog.chunks_for_trace("shop", number % 8, ids[number])]
    return (time.perf_counter() - start) / 100


@pytest.mark.timeout(120)
def test_many_chunks_open_in_seconds_and_cost_a_look_up_little_more(tmp_path: Path) -> None:
    _, small, small_ids = filled(tmp_path / "small", 800)
    bucket, large, large_ids = filled(tmp_path / "large", 20_000)
    large.close()

    start = time.perf_counter()
    large = Catalog(tmp_path / "large", TOPIC, bucket)  # type: ignore[arg-type]
    opened_s = time.perf_counter() - start

    assert large.count() == 20_000
    assert opened_s < 5
    assert lookup_s(large, large_ids) < 10 * max(lookup_s(small, small_ids), 0.0005)  # 25 times as many chunks
    small.close()
    large.close()
