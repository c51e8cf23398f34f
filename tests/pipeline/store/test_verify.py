"""Verification: what is whole is called so, and each kind of damage is a sentence that names its object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.store import edit_log
from pipeline.store.edits import Removed
from pipeline.store.manifest import Manifest
from pipeline.store.verify import partitions_of, verify
from tests.pipeline.store.memory_store import T0, TOPIC, MemoryStore, manifest_of
from tests.pipeline.store.shop import encoded, full_shop, spans_table
from tests.pipeline.store.test_edits import edit_of

CHUNK = encoded(spans_table(full_shop()))
Damage = Callable[[MemoryStore, Manifest], None]


def whole() -> tuple[MemoryStore, Manifest]:
    """A store with three ranges, and the one in the middle."""
    store, manifests = MemoryStore(), []
    for first in (0, 10, 20):
        named = manifest_of(first, first + 9)
        entry = replace(named.chunks[0], spans=CHUNK.spans, traces=CHUNK.traces_count)
        manifests.append(store.keep(replace(named, chunks=(entry,))))
        contents = (CHUNK.parquet, CHUNK.traces, CHUNK.trace_filter)
        for name, content in zip(entry.objects, contents, strict=True):
            store.put(entry.bucket, name, content, "")
    return store, manifests[1]


def without(of: Callable[[Manifest], str]) -> Damage:
    return lambda store, manifest: store.remove(store.buckets[0], of(manifest))


def changed(of: Callable[[Manifest], str], change: Callable[[bytes], bytes]) -> Damage:
    def damage(store: MemoryStore, manifest: Manifest) -> None:
        place = (store.buckets[0], of(manifest))
        store.objects[place] = change(store.objects[place])

    return damage


def name_of(field: str) -> Callable[[Manifest], str]:
    return lambda manifest: str(getattr(manifest.chunks[0], field))


def flipped(content: bytes) -> bytes:
    """One bit of a page, in the middle of the row groups."""
    at = len(content) // 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "the chunk is gone": (without(name_of("name")), "is not in bucket"),
    "the traces are gone": (without(name_of("traces_name")), "is not in bucket"),
    "the filter is gone": (without(name_of("filter_name")), "is not in bucket"),
    "a bit of a page": (changed(name_of("name"), flipped), "cannot be read"),
    "half a chunk": (changed(name_of("name"), lambda content: content[: len(content) // 2]), "cannot be read"),
    "no Parquet": (changed(name_of("traces_name"), lambda _: b"garbage"), "cannot be read"),
    "other rows": (changed(name_of("name"), lambda _: CHUNK.traces), "rows, its manifest says"),
    "half a filter": (changed(name_of("filter_name"), lambda content: content[:-1]), "wrong length"),
    "no filter": (changed(name_of("filter_name"), lambda _: b"garbage"), "no trace filter"),
    "another filter": (
        changed(name_of("filter_name"), lambda content: content[:8] + bytes(len(content) - 8)),
        "does not hold a trace",
    ),
    "a manifest is gone": (without(lambda manifest: manifest.name), "leaves a gap: the one before it ends at offset 9"),
    "no manifest": (changed(lambda manifest: manifest.name, lambda _: b"garbage"), "no manifest"),
    "a longer range": (
        changed(lambda manifest: manifest.name, lambda content: content.replace(b'"last":19', b'"last":23')),
        "overlaps the one before it, which ends at offset 23",
    ),
    "another range": (
        changed(lambda manifest: manifest.name, lambda content: content.replace(b'"first":10', b'"first":11')),
        "says that it is of offsets 11 to 19",
    ),
}


def test_what_is_whole_has_no_problems() -> None:
    store, _ = whole()

    found = verify(store, TOPIC, 0)

    assert (found.problems, found.manifests, found.chunks, found.spans) == ([], 3, 3, 3 * CHUNK.spans)
    assert found.bytes == 3 * (len(CHUNK.parquet) + len(CHUNK.traces) + len(CHUNK.trace_filter))
    assert partitions_of(store, TOPIC) == [0]


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_kind_of_damage_is_a_sentence(kind: str) -> None:
    store, manifest = whole()
    damage, said = DAMAGES[kind]

    damage(store, manifest)

    problems = verify(store, TOPIC, 0).problems
    assert len(problems) == 1, problems
    assert said in problems[0]


def test_a_chunk_that_retention_removed_is_not_missed() -> None:
    store, manifest = whole()
    assert edit_log.put(store, edit_of(1, removed=(Removed.of(manifest.chunks[0], T0),)))
    store.remove(store.buckets[0], manifest.chunks[0].name)

    found = verify(store, TOPIC, 0)

    assert (found.problems, found.chunks, found.edits) == ([], 2, 1)


def test_edits_that_cannot_be_read_are_a_problem() -> None:
    store, _ = whole()
    store.put(store.buckets[0], edit_of(1).name, b"garbage", "")

    assert "the edits of partition 0 cannot be read" in verify(store, TOPIC, 0).problems[0]
