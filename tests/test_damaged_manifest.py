"""A manifest that is damaged in the bucket: what it names is missing, nothing else, and whoever needs it names it."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from pipeline.store import chunk, commit
from pipeline.store.objects import ObjectStore
from tests.queriers import querier
from tests.test_kill_and_rebalance import running
from tests.waiting import wait_until
from tests.workers import everything_is_stored, marks, stored_span_ids
from topics import admin, span_chunks, spans_by_trace
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
PARTITION = 1
SOON = {"SPANSTREAM_STORE_RETRY_WAIT_MAX_S": "1"}
RANGES = 3


def forget_entries(settings: Settings) -> None:
    """The topic that tells queriers of manifests is made anew: they go by the bucket."""
    name = full_name(span_chunks.TOPIC, settings.kafka)
    client = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for future in client.delete_topics([name]).values():
        future.result()
    wait_until(lambda: name not in client.list_topics(timeout=10).topics, 30, "the topic is gone")
    admin.ensure(settings)


def traces_of(store: ObjectStore, manifest: str) -> list[str]:
    """IDs of the traces that a manifest's chunks hold."""
    found = commit.read_manifest(store, manifest)
    assert found is not None
    contents = (store.get(one.bucket, one.name) or b"" for one in found.chunks)
    rows = (chunk.read_chunk(content, ["trace_id"]) for content in contents)
    return [one.hex() for some in rows for one in some["trace_id"].to_pylist()]


def asked(url: str, trace_id: str) -> tuple[int, str, str]:
    """Spans of a trace, and the status of the answer with its message."""
    got: dict[str, Any] = httpx.get(f"{url}/api/v2/traces/{trace_id}", timeout=30).json()
    resources = got.get("trace", {}).get("resourceSpans", [])
    spans = sum(len(scope["spans"]) for one in resources for scope in one["scopeSpans"])
    return spans, got.get("status", ""), got.get("message", "")


def test_a_damaged_manifest_is_named_and_hides_its_own_spans_until_it_is_restored(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    often = settings.querier.model_copy(update={"catalog_refresh_s": 1.0})
    with running(settings, tmp_path, seal_age_s=1, variables=SOON) as (load, workers, store):
        worker = workers.start("one")
        for _ in range(RANGES):
            before = marks(store, settings)
            load.send(40)
            wait_until(lambda before=before: all(map(int.__lt__, before, marks(store, settings))), 60)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        names = commit.read_mark(store, full_name(spans_by_trace.TOPIC, settings.kafka), PARTITION).names
        oldest, middle, newest = names[0], names[1], names[-1]
        whole = {name: store.get(store.buckets[0], name) or b"" for name in (middle, newest)}
        before, inside, after = (traces_of(store, name)[0] for name in (oldest, middle, newest))

        workers.end("one", signal.SIGTERM)
        forget_entries(settings)
        store.put(store.buckets[0], middle, b"garbage", "application/json")
        with querier(settings.model_copy(update={"querier": often}), tmp_path) as url:
            for trace_id, spans in ((before, 50), (inside, 0), (after, 50)):
                wait_until(lambda trace_id=trace_id: middle in asked(url, trace_id)[2], 30, "the manifest is named")
                assert asked(url, trace_id)[:2] == (spans, "PARTIAL")

            store.put(store.buckets[0], middle, whole[middle], "application/json")
            for trace_id in (before, inside, after):
                wait_until(lambda trace_id=trace_id: asked(url, trace_id)[2] == "", 30, "it is restored")
                assert asked(url, trace_id)[0] == 50

        store.put(store.buckets[0], newest, b"garbage", "application/json")
        load.send(40)
        workers.start("one")
        wait_until(lambda: newest in ready_of(worker), 60, "the worker says which manifest it cannot read")
        store.put(store.buckets[0], newest, whole[newest], "application/json")
        wait_until(lambda: everything_is_stored(store, settings), 60, "it goes on by itself")

        assert stored_span_ids(store, settings) == Counter(load.sent)
        assert "Traceback" not in (tmp_path / "one.log").read_text()


def ready_of(url: str) -> str:
    """What a worker says of being ready; nothing while nobody answers."""
    try:
        return httpx.get(f"{url}/ready").text
    except httpx.TransportError:
        return ""
