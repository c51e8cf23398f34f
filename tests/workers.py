"""Real worker processes for tests, and what they have stored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.ports import free_port
from pipeline.spans import schema
from pipeline.store import chunk, commit
from pipeline.store.objects import ObjectStore
from topics import admin, spans_by_trace
from topics.settings import Settings, StoreSettings
from topics.topic import full_name

COMMAND = ("-m", "agents.cli", "worker")


class Workers:
    """Real worker processes on one consumer group. command: of Python; variables: more of every worker's.

    store: what the workers are told beside the store's place, where that is not the default.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        seal_age_s: float = 2,
        seal_spans: int = 400,
        store: StoreSettings | None = None,
        command: Sequence[str] = COMMAND,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._settings, self._folder, self._seal_age_s = settings, folder, seal_age_s
        self._seal_spans, self._command, self._variables = seal_spans, command, dict(variables or {})
        if store is not None:
            times = ("put_timeout_s", "get_timeout_s", "retry_wait_max_s")
            self._variables |= {f"SPANSTREAM_STORE_{name.upper()}": str(getattr(store, name)) for name in times}
        self._ports: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def start(self, name: str, *, static_member: str = "", variables: Mapping[str, str] | None = None) -> str:
        """Start a worker; returns its URL. One of the same name has the same port and folder."""
        kafka, store = self._settings.kafka, self._settings.store
        port = self._ports.setdefault(name, free_port())
        own = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "KAFKA_GROUP": kafka.group,
            "KAFKA_SESSION_TIMEOUT_S": "6",
            "STORE_ENDPOINT": store.endpoint,
            "STORE_ACCESS_KEY": store.access_key,
            "STORE_SECRET_KEY": store.secret_key.get_secret_value(),
            "STORE_BUCKETS": ",".join(store.buckets),
            "WORKER_PORT": str(port),
            "WORKER_DATA_DIR": str(self._folder / name),
            "WORKER_SEAL_SPANS": str(self._seal_spans),
            "WORKER_SEAL_AGE_S": str(self._seal_age_s),
            "WORKER_STATIC_MEMBER": static_member,
        }
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, *self._command],
                env=os.environ
                | {f"SPANSTREAM_{key}": value for key, value in own.items()}
                | self._variables
                | dict(variables or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return f"http://127.0.0.1:{port}"

    def end(self, name: str, number: signal.Signals) -> None:
        worker = self.running.pop(name)
        worker.send_signal(number)
        worker.wait(30)

    def kill(self, name: str) -> None:
        """With -9; one that is dead already is taken off the list."""
        worker = self.running.pop(name)
        worker.kill()
        worker.wait(30)

    def ended_by_themselves(self) -> list[str]:
        """Those that nobody ended."""
        return [name for name, worker in self.running.items() if worker.poll() is not None]

    def end_all(self) -> None:
        for name in list(self.running):
            self.kill(name)


def marks(store: ObjectStore, settings: Settings) -> list[int]:
    topic = full_name(spans_by_trace.TOPIC, settings.kafka)
    return [commit.read_mark(store, topic, partition).mark for partition in range(settings.kafka.partitions)]


def everything_is_stored(store: ObjectStore, settings: Settings) -> bool:
    ends = admin.watermarks(settings, spans_by_trace.TOPIC)
    return marks(store, settings) == [ends[partition][1] for partition in sorted(ends)]


def everything_is_committed(settings: Settings) -> bool:
    """Whether Kafka's commits follow what is stored: a group whose offsets stand still would read all of it again."""
    ends = admin.watermarks(settings, spans_by_trace.TOPIC)
    return admin.committed(settings, spans_by_trace.TOPIC) == {number: end for number, (_, end) in ends.items() if end}


def stored_span_ids(store: ObjectStore, settings: Settings) -> Counter[bytes]:
    """Every span in every chunk that a manifest names; the ranges must follow each other without gap or overlap."""
    topic, found = full_name(spans_by_trace.TOPIC, settings.kafka), Counter[bytes]()
    for partition in range(settings.kafka.partitions):
        expected = 0
        for name in commit.read_mark(store, topic, partition).names:
            manifest = commit.read_manifest(store, name)
            assert manifest is not None
            assert manifest.first == expected
            assert not manifest.losses
            expected = manifest.last + 1
            for entry in manifest.chunks:
                content = store.get(entry.bucket, entry.name)
                assert content is not None
                spans = chunk.read_chunk(content, columns=["span_id"])
                found.update(row.tobytes() for row in schema.fixed_bytes(spans, "span_id", 8))
    return found
