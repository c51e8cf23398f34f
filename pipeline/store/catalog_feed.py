"""Keeps a catalog up: entries from span_chunks as they come, manifests from the bucket where entries are missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.store.catalog import Catalog
from pipeline.store.manifest import Manifest, edits_in_entry
from topics import admin, span_chunks, spans_by_trace
from topics.errors import FormatVersionError, KafkaUnavailableError, MalformedRecordError, StoreUnavailableError
from topics.settings import Settings
from topics.topic import full_name

log = structlog.get_logger(__name__)
POLL_S = 0.1
MESSAGES_MAX = 500
FILTERS_AT_ONCE = 64
RETRY_WAIT_S = 1.0


class CatalogFeed:
    """Two threads: one follows the topic, one lists the bucket and reads filters. start(), then close()."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._stop = threading.Event()
        self._listed = threading.Event()
        self._problem = "the manifests in the bucket have not been listed yet"
        self.changed = ""
        """That the topic has another number of partitions than what is stored was written with; or empty."""
        self._threads = [
            threading.Thread(target=self._follow, name="catalog-topic", daemon=True),
            threading.Thread(target=self._list, name="catalog-bucket", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End; waits for what is under way, bounded by the timeouts of Kafka and the store."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def missing(self) -> str:
        """Why the catalog may not know all that is stored, in a sentence; empty once all partitions were listed.

        What is stored later it learns from the topic, from the next listing, or when a worker says that it is stored.
        """
        return "" if self._listed.is_set() else self._problem

    # ---- the topic

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._consume()
            except (KafkaException, StoreUnavailableError) as error:
                log.warning("catalog_topic_away", error=str(error))
            except Exception:  # the thread must outlive it: what it would miss is listed in the bucket
                log.exception("catalog_topic_failed")
            self._stop.wait(RETRY_WAIT_S)

    def _consumer(self) -> Consumer:
        return Consumer(
            admin.client_config(self._settings.kafka)
            | {
                "group.id": f"{self._settings.kafka.group}-catalog",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": False,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 2,
            }
        )

    def _consume(self) -> None:
        topic = full_name(span_chunks.TOPIC, self._settings.kafka)
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(topic, 0, self._catalog.feed_offset())])
            while not self._stop.is_set():
                messages = consumer.consume(MESSAGES_MAX, timeout=POLL_S)
                for message in messages:
                    if message.error() is not None:
                        raise KafkaException(message.error())
                self._catalog.apply_all(list(self._manifests(message.value() for message in messages)))
                if messages:
                    self._catalog.remember_feed_offset(messages[-1].offset() + 1)
        finally:
            consumer.close()

    def _manifests(self, entries: Iterable[bytes | None]) -> Iterator[Manifest]:
        """The manifests of entries; one without a value says that retention took it."""
        for entry in entries:
            if entry is None:
                continue
            try:
                if (edited := edits_in_entry(entry)) is not None:
                    self._catalog.refresh(edited)
                    continue
                manifest = self._catalog.manifest_of(entry)
            except (MalformedRecordError, FormatVersionError) as error:
                log.error("catalog_entry_refused", error=str(error))
                continue
            if manifest is not None:
                yield manifest

    # ---- the bucket

    def _list(self) -> None:
        while not self._stop.is_set():
            wait_s = self._settings.querier.catalog_refresh_s
            try:
                self._refresh_all()
                self._load_filters(time.monotonic() + wait_s)
            except (StoreUnavailableError, KafkaUnavailableError) as error:
                self._note(str(error))
                wait_s = RETRY_WAIT_S
            except Exception as error:  # the thread must outlive it, and questions say that the catalog may be behind
                log.exception("catalog_refresh_failed")
                self._note(f"the catalog cannot be filled: {error!r}")
                wait_s = RETRY_WAIT_S
            self._stop.wait(wait_s)

    def _refresh_all(self) -> None:
        """List every partition; where a comparison emptied the catalog, those before it once more.

        A manifest that is refused stops its partition's horizon only.
        """
        partitions = range(count := admin.partition_count(self._settings, spans_by_trace.TOPIC))
        for _ in range(2):
            for partition in partitions:
                if self._stop.is_set():
                    return
                try:
                    self._catalog.refresh(partition)
                except (MalformedRecordError, FormatVersionError) as error:
                    log.error("manifest_refused", partition=partition, error=str(error))
            if all(map(self._catalog.listed, partitions)):
                break
        self._listed.set()
        self._compare(count)

    def _compare(self, partitions: int) -> None:
        written, self.changed = self._catalog.written_with(), ""
        if partitions and written and written != partitions:
            self.changed = (
                f"the topic has {partitions} partitions, what is stored was written with {written}: traces stand on"
                " other partitions than before. See docs/operations.md, More partitions"
            )
            self._note(self.changed)

    def _note(self, problem: str) -> None:
        self._problem = problem
        log.warning("catalog_behind", reason=problem)

    def _load_filters(self, until_s: float) -> None:
        while not self._stop.is_set() and time.monotonic() < until_s:
            if not self._catalog.load_filters(FILTERS_AT_ONCE):
                self._stop.wait(min(1.0, max(0.0, until_s - time.monotonic())))
