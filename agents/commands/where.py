"""`spanstream where|chunks`: where a trace stands, and what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.text import Text

from agents.commands.ask import when
from agents.commands.options import with_settings
from agents.commands.querier import Querier, asks_querier, checked_trace_id
from agents.commands.terminal import bare_table, say, screen, show_table, write_json
from topics.errors import NotFoundError
from topics.settings import Settings

if TYPE_CHECKING:
    from pipeline.store.manifest import ChunkEntry, Manifest

OFFSETS_SHOWN = 8
KINDS = {"live": "live segment", "store": "chunk", "kafka": "not read yet"}


@click.command()
@click.argument("trace_id")
@asks_querier
def where(querier: Querier, *, trace_id: str, as_json: bool) -> None:
    """The whole way of a trace: partition, offsets, owner, live segment or manifest, chunk and bucket.

    The same before and after it is stored; a part of it may stand in each.
    """
    document = querier.ask(f"/api/where/{checked_trace_id(trace_id)}")
    if as_json:
        write_json(document)
        return
    if not document["places"]:
        known = f"no span of trace {document['traceID']} is known; it would stand on {_partition(document)}"
        raise NotFoundError(known if document["complete"] else f"{known}. PARTIAL: {'; '.join(document['reasons'])}")
    show_where(document)


@click.command()
@with_settings("kafka.topic_prefix", "store", "log")
@click.option("--partition", metavar="N", type=click.IntRange(min=0), help="Of this partition only")
@click.option("--tenant", help="Of this tenant only")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=20, help="The newest N (default 20)")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
def chunks(settings: Settings, *, partition: int | None, tenant: str | None, limit: int, as_json: bool) -> None:
    """The stored chunks, newest first, from the manifests in the first bucket."""
    stored = [
        (manifest, chunk)
        for manifest in read_manifests(settings, partition)
        for chunk in manifest.chunks
        if tenant in (None, chunk.tenant)
    ]
    stored.sort(key=lambda one: one[0].written_unix_ns, reverse=True)
    if as_json:
        write_json([as_row(manifest, chunk) for manifest, chunk in stored[:limit]])
        return
    table = bare_table()
    for title in ("written", "partition", "offsets", "tenant", "spans", "traces", "bytes", "a span", "bucket", "chunk"):
        right = title in ("partition", "offsets", "spans", "traces", "bytes", "a span")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for manifest, chunk in stored[:limit]:
        table.add_row(
            when(manifest.written_unix_ns),
            str(manifest.partition),
            f"{manifest.first}..{manifest.last}",
            chunk.tenant,
            f"{chunk.spans:,}",
            f"{chunk.traces:,}",
            f"{chunk.bytes:,}",
            f"{chunk.bytes / max(1, chunk.spans):.1f}",
            chunk.bucket,
            chunk.name,
        )
    show_table(table)
    spans, size = sum(one.spans for _, one in stored), sum(one.bytes for _, one in stored)
    say(f"{len(stored):,} chunks, {spans:,} spans, {size:,} bytes: {size / max(1, spans):.1f} bytes a span")


def show_where(document: dict[str, Any]) -> None:
    """The places of a trace, a line each."""
    out = screen()
    head = Text(document["traceID"], "bold")
    head.append(f"  {document['spans']:,} spans on {_partition(document)}")
    out.print(head)
    owner = document["owner"] or "nobody: it is read from Kafka"
    out.print(f"  owned by {owner}; stored up to offset {document['horizon']}")
    for place in document["places"]:
        out.print(Text(f"  {KINDS[place['kind']]}", "green" if place["kind"] == "store" else "yellow"))
        out.print(f"    spans     {place['spans']:,} of tenant {place['tenant']}{_offsets(place)}")
        out.print(f"    range     offsets {place['first']} to {place['last']}")
        for name in ("worker", "bucket", "chunk", "manifest"):
            if place.get(name):
                out.print(Text(f"    {name:9} {place[name]}"))
        if place.get("manifest"):
            out.print(Text(f"    {'':9} in bucket {place['manifestBucket']}", "dim"))
    if not document["complete"]:
        say("PARTIAL: " + "; ".join(document["reasons"]))


def read_manifests(settings: Settings, partition: int | None = None) -> Iterator[Manifest]:
    """Every manifest in the first bucket, with the chunks that count. Raises StoreUnavailableError."""
    from pipeline.store.edit_log import read_folded
    from pipeline.store.objects import ObjectStore
    from pipeline.store.verify import partitions_of
    from topics import spans_by_trace
    from topics.topic import full_name

    topic = full_name(spans_by_trace.TOPIC, settings.kafka)
    store = ObjectStore(settings.store)
    try:
        for number in partitions_of(store, topic) if partition is None else [partition]:
            yield from read_folded(store, topic, number)
    finally:
        store.close()


def as_row(manifest: Manifest, chunk: ChunkEntry) -> dict[str, Any]:
    """A chunk as JSON."""
    return {
        "bucket": chunk.bucket,
        "chunk": chunk.name,
        "manifest": manifest.name,
        "partition": manifest.partition,
        "first": manifest.first,
        "last": manifest.last,
        "tenant": chunk.tenant,
        "spans": chunk.spans,
        "traces": chunk.traces,
        "bytes": chunk.bytes,
        "start_min_unix_ns": chunk.start_min_unix_ns,
        "end_max_unix_ns": chunk.end_max_unix_ns,
        "written_unix_ns": manifest.written_unix_ns,
    }


def _partition(document: dict[str, Any]) -> str:
    return f"partition {document['partition']} of {document['partitions']} of topic {document['topic']}"


def _offsets(place: dict[str, Any]) -> str:
    if not place["offsets"]:
        return ""
    shown = ", record offsets " + ", ".join(map(str, place["offsets"][:OFFSETS_SHOWN]))
    more = len(place["offsets"]) - OFFSETS_SHOWN
    return shown + (f" and {more:,} more" if more > 0 else "")
