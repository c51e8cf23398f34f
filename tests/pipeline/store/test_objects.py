"""Objects on a real MinIO, and what becomes of calls whose requests are refused, dropped or answered to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from pipeline.store.objects import ObjectStore
from tests.pipeline.store.faulty import ANSWER_LOST, DROPPED, FAULTS, REFUSED, Proxy, faulty
from topics.errors import StoreConflictError, StoreUnavailableError
from topics.settings import StoreSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def store(store_settings: StoreSettings) -> Iterator[ObjectStore]:
    opened = ObjectStore(store_settings)
    yield opened
    opened.close()


@pytest.fixture
def spoiled(store_settings: StoreSettings) -> Iterator[tuple[Proxy, ObjectStore]]:
    with faulty(store_settings) as (proxy, settings):
        opened = ObjectStore(settings)
        yield proxy, opened
        opened.close()


def put_all(store: ObjectStore, names: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(store.buckets[0], name, b"x", "text/plain"), names))


def test_what_was_put_is_read_whole_or_in_part_and_a_missing_object_is_none(store: ObjectStore) -> None:
    bucket = store.buckets[0]
    store.put(bucket, "a/b", memoryview(b"0123456789"), "text/plain")
    store.put(bucket, "empty", b"", "text/plain")

    assert store.get(bucket, "a/b") == b"0123456789"
    assert store.get_range(bucket, "a/b", 3, 4) == b"3456"
    assert store.get_range(bucket, "a/b", 8, 100) == b"89"
    assert store.get(bucket, "empty") == b""
    assert (store.get(bucket, "none"), store.get_range(bucket, "none", 0, 1)) == (None, None)


def test_a_removed_object_is_gone_and_removing_it_again_is_no_error(store: ObjectStore) -> None:
    bucket = store.buckets[0]
    store.put(bucket, "a", b"1", "text/plain")

    store.remove(bucket, "a")
    store.remove(bucket, "a")

    assert store.get(bucket, "a") is None


def test_of_64_writers_at_once_one_wins(store: ObjectStore) -> None:
    def attempt(number: int) -> int | None:
        try:
            store.put_if_absent(store.buckets[0], "once", b"%d" % number)
        except StoreConflictError:
            return None
        return number

    with ThreadPoolExecutor(64) as pool:
        winners = [one for one in pool.map(attempt, range(64)) if one is not None]

    assert [store.get(store.buckets[0], "once")] == [b"%d" % one for one in winners]


def test_a_listing_goes_over_pages_and_a_page_that_fails_does_not_end_it(
    store: ObjectStore, spoiled: tuple[Proxy, ObjectStore]
) -> None:
    proxy, behind = spoiled
    bucket, names = store.buckets[0], [f"p/{number:04d}" for number in range(1010)]
    put_all(store, [*names, "q/1"])

    assert [one.name for one in store.list(bucket, "p/")] == names
    assert [one.name for one in store.list(bucket, "p/", start_after=names[1000])] == names[1001:]
    for fault in (REFUSED, DROPPED):
        for page in (0, 1):
            proxy.start_over(lambda number, *_, f=fault, p=page: f if number == p else "")  # type: ignore[misc]
            assert [one.name for one in behind.list(bucket, "p/")] == names


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_is_tried_again_and_a_put_is_not(spoiled: tuple[Proxy, ObjectStore], fault: str) -> None:
    proxy, store = spoiled
    bucket = store.buckets[0]
    store.put(bucket, "a", b"1", "text/plain")

    proxy.start_over(lambda number, *_: fault if number < 2 else "")
    read = store.get(bucket, "a")
    proxy.start_over(lambda *_: fault)
    with pytest.raises(StoreUnavailableError):
        store.put(bucket, "b", b"1", "text/plain")
    with pytest.raises(StoreUnavailableError):
        store.put_if_absent(bucket, "c", b"1")
    puts = len(proxy.seen)
    with pytest.raises(StoreUnavailableError):
        store.get(bucket, "a")
    proxy.start_over(lambda *_: "")

    assert read == b"1"
    assert puts == 2
    arrived = b"1" if fault == ANSWER_LOST else None
    assert (store.get(bucket, "b"), store.get(bucket, "c")) == (arrived, arrived)


def test_a_bucket_that_is_missing_is_made_once(store_settings: StoreSettings) -> None:
    store = ObjectStore(store_settings.model_copy(update={"buckets": (*store_settings.buckets, "made-by-this-test")}))

    store.ensure_buckets()
    store.ensure_buckets()

    store.put("made-by-this-test", "a", b"1", "text/plain")
    store.close()


def test_the_probe_leaves_nothing_behind_and_is_made_once(spoiled: tuple[Proxy, ObjectStore]) -> None:
    proxy, store = spoiled

    assert (store.refuses_second_put(), store.refuses_second_put()) == (True, True)
    assert [method for method, _ in proxy.seen] == ["PUT", "PUT", "DELETE"]
    assert list(store.list(store.buckets[0], "")) == []


def test_a_store_that_takes_a_second_put_is_found_out(spoiled: tuple[Proxy, ObjectStore]) -> None:
    proxy, store = spoiled
    proxy.ignores_conditions = True

    assert store.refuses_second_put() is False


def test_a_store_that_refuses_says_what_to_do(store_settings: StoreSettings) -> None:
    no_bucket = ObjectStore(store_settings.model_copy(update={"buckets": ("not-there",)}))
    wrong_key = ObjectStore(store_settings.model_copy(update={"secret_key": SecretStr("wrong-secret")}))

    with pytest.raises(StoreUnavailableError, match=r"NoSuchBucket.*/not-there.*spanstream doctor"):
        list(no_bucket.list("not-there", ""))
    with pytest.raises(StoreUnavailableError, match=r"NoSuchBucket.*spanstream doctor"):
        no_bucket.conditional_put_works()
    with pytest.raises(StoreUnavailableError, match=r"SignatureDoesNotMatch.*store\.secret_key right"):
        list(wrong_key.list(wrong_key.buckets[0], ""))


def test_a_refused_connection_is_counted_as_no_connection() -> None:
    store = ObjectStore(StoreSettings(endpoint="http://127.0.0.1:1"))

    with pytest.raises(StoreUnavailableError, match="no connection"):
        store.get("spans-a", "a")
