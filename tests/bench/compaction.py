"""What compaction does to chunks: how many there are, their bytes, how soon a trace in them is found."""

from __future__ import annotations

import asyncio
from statistics import median

from agents.load.blocks import Load
from pipeline.store import edit_log
from pipeline.store.manifest import ChunkEntry
from pipeline.store.objects import ObjectStore
from tests.bench.processes import until
from tests.bench.report import Report
from tests.bench.rows import SEED, TRACES_ASKED, Bench, Figures, ask_all
from topics import spans_by_trace
from topics.settings import Settings
from topics.topic import full_name

RATE = 6_000.0  # slow, so that ranges are small
FEWER = 2  # merged enough when there are so many times fewer chunks
SOON = {
    "every_s": 1.0,
    "removed_kept_s": 0.0,
    "compaction_after_h": 0.0,
    "compaction_every_s": 0.0,
    "compaction_parts_min": 2,
}
SHORT = {"query_timeout_s": 1.0, "catalog_refresh_s": 1.0}  # then chunks are old soon


def compaction_rows(report: Report, bench: Bench, spans: int) -> None:
    """Small chunks are written, asked about, merged, and asked about again."""
    settings, load = bench.settings("compaction", seal_spans=2_000, seal_age_s=1.0, window_s=1.0), Load(spans, SEED)
    report.measure("small chunks", lambda: _fill(bench, settings, spans))
    report.measure("before compaction", lambda: _asked(bench, settings, load, "before"))
    report.measure("compaction", lambda: _merge(bench, settings))
    report.measure("after compaction", lambda: _asked(bench, settings, load, "after"))


def _fill(bench: Bench, settings: Settings, spans: int) -> Figures:
    never = settings.model_copy(update={"housekeeping": settings.housekeeping.model_copy(update={"every_s": 0.0})})
    bench.fill(never, spans, rate=RATE, timeout_s=300)
    return {}


def _merge(bench: Bench, settings: Settings) -> Figures:
    now = settings.model_copy(
        update={
            "housekeeping": settings.housekeeping.model_copy(update=SOON),
            "store": settings.store.model_copy(update={"put_timeout_s": 5.0}),
            "querier": settings.querier.model_copy(update=SHORT),
        }
    )
    before = len(_chunks(settings))
    with bench.process("worker", now) as worker:
        idle_mb, idle_s = worker.peak_mb(), worker.cpu_s()
        until(lambda: len(_chunks(settings)) * FEWER <= before, 300, "chunks are merged", poll_s=1.0)
        merged = sum(one.spans for one in _chunks(settings))
        return {
            "compaction, CPU": (worker.cpu_s() - idle_s) / merged * 1e6,
            "compaction, memory beside an idle worker's": worker.peak_mb() - idle_mb,
        }


def _asked(bench: Bench, settings: Settings, load: Load, when: str) -> Figures:
    per_block = max(1, TRACES_ASKED // load.blocks)
    ids = [one.tobytes() for block in range(load.blocks) for one in load.trace_ids(block)[:per_block]]
    with bench.process("serve", settings) as querier:
        asyncio.run(ask_all(querier.url, ids[:40], warm_up=True))
        times_ms = asyncio.run(ask_all(querier.url, ids[:TRACES_ASKED]))
    chunks = _chunks(settings)
    return {
        f"compaction, chunks {when}": len(chunks),
        f"compaction, bytes {when}": sum(one.bytes for one in chunks) / load.spans,
        f"compaction, trace by ID {when}, p50": median(times_ms),
    }


def _chunks(settings: Settings) -> list[ChunkEntry]:
    """Those that count."""
    store, topic = ObjectStore(settings.store), full_name(spans_by_trace.TOPIC, settings.kafka)
    return [
        chunk
        for partition in range(settings.kafka.partitions)
        for manifest in edit_log.read_folded(store, topic, partition)
        for chunk in manifest.chunks
    ]
