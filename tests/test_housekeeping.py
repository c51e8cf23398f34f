"""Compaction and retention by a worker on real Kafka and MinIO, while a querier is asked all the time."""

from __future__ import annotations

import signal
from collections import Counter
from itertools import chain
from pathlib import Path

import httpx
import pytest

from pipeline.store import chunk, edit_log, verify
from pipeline.store.manifest import ChunkEntry
from pipeline.store.objects import ObjectStore
from tests.metrics import metric
from tests.pipeline.store.test_verify import flipped
from tests.queriers import asking, querier
from tests.test_kill_and_rebalance import Load, running
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, marks
from topics import admin, spans_by_trace
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
SOON = {  # objects are deleted 4 s after their chunks were removed
    "WORKER_WINDOW_S": "1",
    "HOUSEKEEPING_EVERY_S": "1",
    "HOUSEKEEPING_REMOVED_KEPT_S": "0",
    "STORE_PUT_TIMEOUT_S": "2",
    "QUERIER_QUERY_TIMEOUT_S": "2",
    "QUERIER_CATALOG_REFRESH_S": "1",
}
LATER = {"HOUSEKEEPING_COMPACTION_CHUNK_BYTES": "0"}
COMPACTION = {
    "HOUSEKEEPING_COMPACTION_AFTER_H": "0",
    "HOUSEKEEPING_COMPACTION_PARTS_MIN": "2",
    "HOUSEKEEPING_COMPACTION_PARTS_MAX": "64",
    "HOUSEKEEPING_COMPACTION_EVERY_S": "0",
}
RETENTION = {"HOUSEKEEPING_CHUNK_RETENTION_H": "0.0005"}


class Bucket:
    """What is stored, as it counts."""

    def __init__(self, store: ObjectStore, settings: Settings) -> None:
        self._store, self._partitions = store, settings.kafka.partitions
        self._topic = full_name(spans_by_trace.TOPIC, settings.kafka)

    def chunks(self) -> list[list[ChunkEntry]]:
        """Of each partition."""
        return [
            [one for manifest in edit_log.read_folded(self._store, self._topic, number) for one in manifest.chunks]
            for number in range(self._partitions)
        ]

    def span_ids(self) -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        for one in chain.from_iterable(self.chunks()):
            content = self._store.get(one.bucket, one.name)
            assert content is not None
            found.update(chunk.read_chunk(content, ["span_id"]).column("span_id").to_pylist())
        return found

    def objects(self) -> int:
        return sum(1 for bucket in self._store.buckets for _ in self._store.list(bucket, "chunks/"))

    def problems(self) -> list[str]:
        found = (verify.verify(self._store, self._topic, number) for number in range(self._partitions))
        return [problem for one in found for problem in one.problems]


def variables(*some: dict[str, str]) -> dict[str, str]:
    return {f"SPANSTREAM_{name}": value for one in some for name, value in one.items()}


def test_chunks_are_merged_and_removed_under_a_querier_that_goes_on(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    store, load = ObjectStore(settings.store), Load(settings)
    bucket, workers = Bucket(store, settings), Workers(settings, tmp_path, seal_age_s=1, variables=variables(SOON))
    with workers, querier(settings, tmp_path) as url:
        workers.start("one", variables=variables(LATER))

        def store_more(copies: int) -> None:
            load.send(40)
            load.send_again(copies)
            wait_until(lambda: everything_is_stored(store, settings), 60)

        for _ in range(3):
            store_more(copies=0)
        while bucket.span_ids().total() <= len(load.sent):
            store_more(copies=30)  # after the window: stored again, unless it is held yet
        for _ in range(2):
            store_more(copies=0)  # the newest chunks are not merged
        wait_until(lambda: everything_is_stored(store, settings), 60)
        small, twice = bucket.chunks(), bucket.span_ids()
        workers.end("one", signal.SIGTERM)

        assert twice.total() > len(load.sent)
        with asking(url, lambda: load.traces) as asker:
            worker = workers.start("one", variables=variables(COMPACTION))
            wait_until(lambda: bucket.span_ids() == Counter(load.sent), 120, "late copies are merged away")
            wait_until(lambda: bucket.objects() == 3 * sum(map(len, bucket.chunks())), 120, "the parts are deleted")
            asked = asker.complete
            wait_until(lambda: asker.complete > asked + 20, 60, "the querier goes on")

        assert asker.wrong == []
        assert asker.partial == 0
        assert all(len(after) < len(before) for before, after in zip(small, bucket.chunks(), strict=True))
        assert bucket.problems() == []
        assert metric(worker, "spanstream_worker_compacted_chunks_total") > 0
        assert metric(worker, "spanstream_worker_removed_copies_total") == twice.total() - len(load.sent)

        workers.end("one", signal.SIGTERM)
        ends = marks(store, settings)
        workers.start("one", variables=variables(RETENTION))
        wait_until(lambda: bucket.objects() == 0, 120, "all is too old")
        gone = load.traces[0][0].hex()
        wait_until(lambda: httpx.get(f"{url}/api/traces/{gone}").status_code == 404, 60)

        assert marks(store, settings) == ends
        assert bucket.problems() == []
    store.close()


def test_a_damaged_byte_of_a_stored_chunk_is_told_until_it_is_restored(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    often = {
        "HOUSEKEEPING_EVERY_S": "1",
        "HOUSEKEEPING_CHECK_BYTES_PER_S": str(1 << 30),
        "QUERIER_CATALOG_REFRESH_S": "1",
    }
    begun = running(settings, tmp_path, seal_age_s=1, variables=variables(often))
    with begun as (load, workers, store), querier(settings, tmp_path) as url:
        worker = workers.start("one")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        one = next(chain.from_iterable(Bucket(store, settings).chunks()))
        whole = store.get(one.bucket, one.name)
        assert whole is not None
        trace_id = chunk.read_chunk(whole, ["trace_id"]).column("trace_id")[0].as_py().hex()
        questions = (f"/api/v2/traces/{trace_id}", "/api/search?q={}&limit=1&start=1699999000&end=1700001000")

        def told() -> list[bool]:
            answers = [httpx.get(f"{url}{question}", timeout=30).text for question in questions]
            return [f"{one.name} is damaged" in answer for answer in answers]

        store.put(one.bucket, one.name, flipped(whole), "")
        wait_until(lambda: metric(worker, "spanstream_worker_damaged_chunks") == 1, 60, "the damage is told")
        wait_until(lambda: told() == [True, True], 60, "answers say so")
        assert httpx.get(f"{url}/api/status/system", timeout=30).json()["damaged"] == [one.name]

        store.put(one.bucket, one.name, whole, "")
        wait_until(lambda: metric(worker, "spanstream_worker_damaged_chunks") == 0, 60, "it is whole again")
        wait_until(lambda: told() == [False, False], 60, "answers are exact again")
