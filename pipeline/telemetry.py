"""Every metric, once. Each is described in docs/operations.md; a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

from pipeline.drops import count_prepared, short_reason

if TYPE_CHECKING:
    from pipeline.partition.batch import Prepared
    from pipeline.partition.state import Partition
    from pipeline.store.manifest import Manifest

# ---- every process

REFUSED = Counter("spanstream_refused_requests", "Requests without a token or tenant, or with a wrong one", ["status"])
FILE_RELOADS = Counter("spanstream_file_reloads", "Changes of a watched file, taken or refused", ["file", "outcome"])

# ---- receiver

REQUESTS = Counter("spanstream_receiver_requests", "Requests answered, by protocol and status", ["protocol", "status"])
REQUEST_BYTES = Counter("spanstream_receiver_request_bytes", "Bytes of requests, unpacked")
REQUEST_SECONDS = Histogram(
    "spanstream_receiver_request_seconds",
    "From a request's last byte to its answer, Kafka's confirmation included",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
SPANS_RECEIVED = Counter("spanstream_receiver_spans", "Spans acknowledged: Kafka has them")
SPANS_REJECTED = Counter("spanstream_receiver_rejected_spans", "Spans refused by partial success", ["reason"])
SPANS_CHANGED = Counter("spanstream_receiver_marked_spans", "Spans cut, padded or repaired, and marked", ["mark"])
RECORDS_SENT = Counter("spanstream_receiver_records", "Records given to Kafka")
RECORD_BYTES = Counter("spanstream_receiver_record_bytes", "Bytes of records given to Kafka, before compression")
INFLIGHT_BYTES = Gauge("spanstream_receiver_inflight_bytes", "Bytes of requests not yet acknowledged")

# ---- whoever reads or writes the store

STORE_FAULTS = Counter(
    "spanstream_store_faults", "Requests to the store that failed, by operation and fault", ["operation", "fault"]
)

# ---- worker

SPANS_TAKEN = Counter("spanstream_worker_spans", "Spans read from the keyed topic, copies included")
SPANS_DUPLICATE = Counter("spanstream_worker_duplicate_spans", "Copies that the window knew and dropped")
SPANS_MARKED = Counter(
    "spanstream_worker_marked", "Spans cut, repaired or odd, and spans left out, by reason", ["reason"]
)
RECORDS_DEAD = Counter("spanstream_worker_dead_records", "Records set aside in the dead-letter topic", ["reason"])
LOST_RECORDS = Counter("spanstream_worker_lost_records", "Offsets that Kafka's retention deleted before they were read")
AWAY = Counter(
    "spanstream_worker_waits",
    "Tries that failed because Kafka or the store did not answer, or the disk was full",
    ["what"],
)
SEAL_SECONDS = Histogram(
    "spanstream_worker_seal_seconds",
    "Time to encode and store one range, manifest included",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
RANGES_STORED = Counter("spanstream_worker_stored_ranges", "Ranges stored: manifests written")
CHUNK_SPANS = Counter("spanstream_worker_stored_spans", "Spans in stored chunks")
CHUNK_BYTES = Counter("spanstream_worker_stored_bytes", "Bytes of stored chunks and the objects beside them")
CHUNKS_RETIRED = Counter(
    "spanstream_worker_retired_chunks", "Chunks older than housekeeping.chunk_retention_h, removed"
)
ORPHANS_DELETED = Counter("spanstream_worker_deleted_orphans", "Objects deleted that no manifest and no edit names")
CHUNKS_CHECKED = Counter(
    "spanstream_worker_checked_chunks", "Stored chunks of which every page's checksum was looked at again"
)
CHUNKS_DAMAGED = Gauge(
    "spanstream_worker_damaged_chunks", "Chunks that count and were damaged or not there when they were last looked at"
)
CHUNKS_COMPACTED = Counter("spanstream_worker_compacted_chunks", "Small chunks whose place a larger one took")
COMPACTED_BYTES = Counter(
    "spanstream_worker_compacted_bytes", "Bytes of chunks, before they were merged and after", ["side"]
)
COPIES_REMOVED = Counter("spanstream_worker_removed_copies", "Late copies of spans that merging chunks left out")
COMPACTION_LEFT = Counter(
    "spanstream_worker_unmerged_chunks", "Chunks left as they are: damaged, or too large for the memory of a merge"
)
COMPACTION_SECONDS = Histogram(
    "spanstream_worker_compaction_seconds",
    "Time to merge chunks into one and store it, pauses included",
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
)
PARTITIONS_OWNED = Gauge("spanstream_worker_partitions", "Partitions owned and loaded")
OPEN_BYTES = Gauge("spanstream_worker_open_bytes", "Bytes of segments not yet in a chunk, in memory and in RocksDB")
HELD_BYTES = Gauge("spanstream_worker_held_bytes", "Bytes of segments in memory and of the windows")
OLDEST_OPEN_SECONDS = Gauge("spanstream_worker_oldest_unsealed_seconds", "Age of the oldest record not yet in a chunk")
LAG_SECONDS = Gauge("spanstream_worker_lag_seconds", "Age of the newest record taken, at the partition furthest behind")
LAG_RECORDS = Gauge("spanstream_worker_lag_records", "Records not yet taken, over the owned partitions")
WINDOW_KEYS = Gauge("spanstream_worker_window_keys", "Keys in the deduplication windows")

# ---- querier

QUERY_SECONDS = Histogram(
    "spanstream_querier_request_seconds",
    "Time of an HTTP answer, by question and status",
    ["question", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
PARTIAL_ANSWERS = Counter("spanstream_querier_partial_answers", "Answers that were not complete", ["question"])
LIVE_TAILS = Gauge("spanstream_querier_live_tails", "Live tails that are open")
LIVE_COPY_BYTES = Gauge("spanstream_querier_live_copy_bytes", "Bytes of copies of live segments kept")
LIVE_BLOCK_BYTES = Counter("spanstream_querier_live_bytes", "Bytes of live segments fetched from workers")
TAIL_RECORDS = Counter("spanstream_querier_tail_records", "Records that queries read from Kafka")
CHUNKS_OPENED = Counter("spanstream_querier_chunks", "Chunks that queries opened, warm ones included")
COPIED_BYTES = Counter("spanstream_querier_copied_bytes", "Bytes of chunks that were copied to the local disk")
EXECUTOR_TASKS = Counter("spanstream_querier_executor_tasks", "Tasks that workers of querier.executor answered")
EXECUTOR_FALLBACKS = Counter(
    "spanstream_querier_executor_fallbacks", "Times that a querier did a task of querier.executor itself", ["reason"]
)
VIEW_CACHE_BYTES = Gauge("spanstream_querier_view_cache_bytes", "Bytes of traces kept that the page shows")
COPIES_BYTES = Gauge("spanstream_querier_copies_bytes", "Bytes that copies of chunks take on the local disk")
ENGINE_BYTES = Gauge("spanstream_querier_engine_bytes", "Memory that the query engine holds, its cache included")

# ---- canary

CANARY_CHECKS = Counter(
    "spanstream_canary_checks",
    "Checks of known traces, by what was asked, at which age, and its result",
    ["check", "age", "result"],
)
CANARY_MISSING = Counter(
    "spanstream_canary_missing", "Checks that were not right, by the place it went missing", ["stage"]
)
CANARY_LAST_CHECK = Gauge(
    "spanstream_canary_last_check_timestamp_seconds", "When the last check was made that was right, or not", ["right"]
)
CANARY_FRESH_SECONDS = Histogram(
    "spanstream_canary_fresh_seconds",
    "From a known trace's first look to the answer that has all of it",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


def page(names: Sequence[str] = ()) -> bytes:
    """The metrics as Prometheus text. names: of the samples that are wanted, none for all: all take some 8 ms."""
    return generate_latest(REGISTRY.restricted_registry(names) if names else REGISTRY)


def count_batch(prepared: Prepared) -> None:
    """Count what one batch held."""
    SPANS_TAKEN.inc(prepared.received.total())
    SPANS_DUPLICATE.inc(prepared.duplicates.total())
    for (_, reason), count in prepared.counts.items():
        SPANS_MARKED.labels(reason=reason).inc(count)
    for letter in prepared.dead:
        RECORDS_DEAD.labels(reason=short_reason(letter.reason)).inc()
    count_prepared(prepared)


def count_manifest(manifest: Manifest) -> None:
    """Count a stored range."""
    RANGES_STORED.inc()
    CHUNK_SPANS.inc(sum(chunk.spans for chunk in manifest.chunks))
    CHUNK_BYTES.inc(sum(chunk.bytes for chunk in manifest.chunks))


def observe_partitions(
    states: Sequence[Partition], progress: Sequence[Mapping[str, int | float | None]], now_ns: int
) -> None:
    """Set the gauges of the owned partitions. now_ns: a steady clock; progress: one row a partition, as the table
    endpoint shows it.
    """
    LAG_RECORDS.set(sum(row["lag_records"] or 0 for row in progress))
    LAG_SECONDS.set(max((row["lag_s"] or 0 for row in progress), default=0))
    opened = [segment for state in states for segment in state.segments if segment.first >= state.mark]
    PARTITIONS_OWNED.set(len(states))
    OPEN_BYTES.set(sum(segment.nbytes for segment in opened))
    HELD_BYTES.set(sum(state.nbytes for state in states))
    WINDOW_KEYS.set(sum(len(state.window) for state in states))
    oldest = min((segment.oldest_ns for segment in opened), default=now_ns)
    OLDEST_OPEN_SECONDS.set((now_ns - oldest) / 1e9)
