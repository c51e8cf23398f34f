"""Every operation on the store under every fault: nothing lost or twice, bounded tries, and the fault is named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline import telemetry
from pipeline.store import commit
from pipeline.store.chunk import read_chunk
from pipeline.store.objects import ObjectStore
from tests.pipeline.store.faulty import ALL_FAULTS, CUT, HALF, SLOW, STATUS, Proxy, faulty
from tests.pipeline.store.test_commit import NOW, sealed
from topics.errors import StoreUnavailableError
from topics.settings import Settings, StoreSettings

pytestmark = pytest.mark.integration
TRIES_MAX = 4
Matches = Callable[[str, str], bool]
PUTS: dict[str, Matches] = {
    "put chunk": lambda method, path: method == "PUT" and path.endswith(".parquet") and ".traces." not in path,
    "put side objects": lambda method, path: method == "PUT" and path.endswith((".traces.parquet", ".filter")),
    "put manifest": lambda method, path: method == "PUT" and "/manifests/" in path,
}
READS: dict[str, tuple[str, Callable[[ObjectStore], Any]]] = {
    "get": ("GET", lambda store: store.get(store.buckets[0], "a")),
    "ranged get": ("GET", lambda store: store.get_range(store.buckets[0], "a", 2, 5)),
    "list": ("GET", lambda store: [one.name for one in store.list(store.buckets[0], "a")]),
    "head": ("HEAD", lambda store: store.ensure_buckets()),
}


@pytest.fixture
def spoiled(store_settings: StoreSettings) -> Iterator[tuple[Proxy, ObjectStore]]:
    with faulty(store_settings) as (proxy, settings):
        opened = ObjectStore(settings.model_copy(update={"put_timeout_s": 1.0, "get_timeout_s": 1.0}))
        yield proxy, opened
        opened.close()


def faults_counted() -> float:
    return sum(
        sample.value
        for metric in telemetry.STORE_FAULTS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_a_range_is_stored_once_whatever_becomes_of_its_puts(spoiled: tuple[Proxy, ObjectStore], fault: str) -> None:
    proxy, store = spoiled
    settings, stop = Settings(store=store.settings), threading.Event()
    for at, (what, matches) in enumerate(PUTS.items()):
        left = [1]

        def spoil(_number: int, method: str, path: str, left: list[int] = left, matches: Matches = matches) -> str:
            if not matches(method, path.split("?")[0]) or not left[0]:
                return ""
            left[0] -= 1
            return fault

        proxy.start_over(spoil)
        one = sealed(10 * at, 10 * at + 9, {"shop": [100 * at + 1, 100 * at + 2], "bank": [100 * at + 3]})
        manifest = commit.store_range(store, settings, one, worker="http://w", now_unix_ns=NOW, stop=stop)

        assert left == [0], what
        assert manifest is not None
        found = commit.read_mark(store, "spans_by_trace", 3)
        assert found.mark == 10 * at + 10
        assert found.newest == manifest
        stored = [read_chunk(store.get(entry.bucket, entry.name) or b"").num_rows for entry in manifest.chunks]
        assert sorted(stored) == [1, 2]
        puts = [path.split("?")[0] for method, path in proxy.seen if method == "PUT"]
        assert max(puts.count(path) for path in puts) <= TRIES_MAX


@pytest.mark.parametrize("operation", READS)
def test_a_read_is_tried_again_and_its_fault_is_named(spoiled: tuple[Proxy, ObjectStore], operation: str) -> None:
    for fault in ALL_FAULTS:
        if fault != CUT or operation == "list":  # else page checksums find it, not the store's client
            check_read(*spoiled, operation, fault)


def check_read(proxy: Proxy, store: ObjectStore, operation: str, fault: str) -> None:
    method, read = READS[operation]
    proxy.start_over(lambda *_: "")
    store.put(store.buckets[0], "a", b"0123456789" * 50, "text/plain")
    right = read(store)
    proxy.start_over(lambda number, came, _path: fault if came == method and number < 1 else "")
    before = faults_counted()
    with capture_logs() as logs:
        again = read(store)

    assert again == right, fault
    assert len(proxy.seen) <= TRIES_MAX + 1
    if fault != SLOW and not (operation == "head" and fault in (HALF, CUT)):  # a HEAD has no body
        assert faults_counted() == before + 1
        assert [line["event"] for line in logs] == ["store_fault"]

    if fault in STATUS and operation == "get":
        proxy.start_over(lambda *_: fault)
        with pytest.raises(StoreUnavailableError):
            read(store)
        assert len(proxy.seen) == TRIES_MAX
