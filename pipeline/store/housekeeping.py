"""Housekeeping of one partition, by its owner: what is too old goes, what nothing names any more, and small chunks.

Each change is an edit first (pipeline.store.edits), so that of two owners' changes one counts, and readers know before
an object is gone: it is deleted when no question can still be at it. Everything here may stop at any point and be begun
again: what it goes by stands in the bucket, but for how long a chunk has been seen removed, an object without a name.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from pipeline import telemetry
from pipeline.clocks import Clocks
from pipeline.store import commit, edit_log
from pipeline.store.compaction import Compactor
from pipeline.store.edit_log import Listed
from pipeline.store.edits import Edit, EditState, Removed
from pipeline.store.manifest import (
    ChunkEntry,
    Manifest,
    manifest_name,
    parse_chunk_object,
    parse_manifest_name,
)
from pipeline.store.objects import ObjectStore
from pipeline.store.slow_check import SlowCheck
from topics.settings import Settings

log = structlog.get_logger(__name__)
TOKEN_BYTES = 8
CHUNKS_PREFIX = "chunks/"
REMOVED_AT_ONCE = 1000  # chunks of one edit
REMOVED_MAX = 20_000  # of a partition that manifests still name: readers hold them all; no more is merged then
SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


@dataclass(slots=True, kw_only=True)
class Kept:
    """What one round did. edited: readers should look; gone: first offsets of manifests that were deleted."""

    edited: bool = False
    chunks_removed: int = 0
    chunks_merged: int = 0
    objects_deleted: int = 0
    orphans_deleted: int = 0
    gone: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """How long chunks are kept: of all tenants, and of those that have a time of their own."""

    default_s: float
    of_tenants: Mapping[str, float] = field(default_factory=dict)

    def kept_ns(self, tenant: str) -> int:
        """How long a tenant's chunks are kept."""
        return int(self.of_tenants.get(tenant, self.default_s) * SECOND_NS)

    def limit_ns(self, tenant: str, now_unix_ns: int) -> int:
        """What was written before is too old."""
        return now_unix_ns - self.kept_ns(tenant)

    def latest_ns(self, now_unix_ns: int) -> int:
        """What was written later is too old for nobody."""
        return now_unix_ns - int(min([self.default_s, *self.of_tenants.values()]) * SECOND_NS)


class Housekeeper:
    """Keeps the partitions of `topic` that a worker owns, one at a time; blocking, for a thread of its own.

    retention: asked anew for each round; busy: whether the worker is storing a range.
    """

    def __init__(  # noqa: PLR0913 - what it touches, each handed in
        self,
        settings: Settings,
        store: ObjectStore,
        *,
        topic: str,
        worker: str,
        clocks: Clocks,
        retention: Callable[[], Retention],
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings, self._store = settings, store
        self._topic, self._worker = topic, worker
        self._clocks = clocks
        self._retention = retention
        self._compactor = Compactor(settings, store, topic=topic, clocks=clocks, busy=busy)
        self.slow_check = SlowCheck(settings, store, clocks=clocks, busy=busy)
        self._deleted: dict[int, set[str]] = {}  # partition -> names of chunks whose objects were deleted
        # By the steady clock: partition -> chunk -> first seen removed; object -> first seen without a name; and when
        self._removed: dict[int, dict[str, int]] = {}
        self._unnamed: dict[int, dict[str, int]] = {}
        self._retired_ns: dict[int, int] = {}
        self._swept_ns: dict[int, int] = {}

    @property
    def grace_ns(self) -> int:
        """How long an object outlives its name: longer than the longest put and the longest question."""
        querier = self._settings.querier
        asked_s = querier.query_timeout_s + 2 * querier.catalog_refresh_s
        kept_s = self._settings.housekeeping.removed_kept_s
        return int(max(kept_s, asked_s, 2 * self._settings.store.put_timeout_s) * SECOND_NS)

    def keep(self, partition: int, stop: threading.Event) -> Kept:
        """One round. `stop`: the partition is let go. Raises StoreUnavailableError; FormatVersionError and the like."""
        done = Kept()
        names, state = edit_log.read(self._store, self._topic, partition)
        now = self._clocks.unix_ns()
        edit = self._retired_at_times(partition, names, state, now)
        if edit is not None and (stop.is_set() or not edit_log.put(self._store, edit)):
            return done  # another owner changed something meanwhile: the next round goes by that
        if edit is not None:
            state = state.after(edit)
            done.edited, done.chunks_removed = True, len(edit.removed)
            telemetry.CHUNKS_RETIRED.inc(len(edit.removed))
            log.info("chunks_retired", partition=partition, chunks=len(edit.removed), oldest=state.oldest)
        if not stop.is_set():
            self._delete(partition, names, state, done)
        if not stop.is_set():
            self._draw_together(partition, names, state)
        if self._clocks.has_passed(self._swept_ns.get(partition), self._settings.housekeeping.sweep_every_h * HOUR_NS):
            began_ns = self._clocks.steady_ns()
            self._sweep(partition, stop, done)
            self._swept_ns[partition] = began_ns
        if not stop.is_set() and self._compactor.due(partition):
            self._compact(partition, stop, done)
        if not stop.is_set():
            self._look_again(partition, stop, done)
        return done

    # ---- retention

    def _retired_at_times(self, partition: int, names: Listed, state: EditState, now: int) -> Edit | None:
        """As _retired; not in every round, since it may read all manifests: a hundredth of the time they are kept."""
        retention = self._retention()
        every_ns = (now - retention.latest_ns(now)) // 100
        if not self._clocks.has_passed(self._retired_ns.get(partition), every_ns):
            return None
        edit = self._retired(names, state, retention, (partition, now))
        if edit is None:  # else look again: there may be more, or it may not be taken
            self._retired_ns[partition] = self._clocks.steady_ns()
        return edit

    def _retired(self, names: Listed, state: EditState, retention: Retention, when: tuple[int, int]) -> Edit | None:
        """The edit that removes what is too old, oldest first, and manifests that have nothing left; None: nothing is.

        The newest manifest stays: it says where the partition goes on.
        """
        partition, now = when
        removed: list[Removed] = []
        oldest, leading = state.oldest, True
        protected = self._window(partition)
        newest = self._read(names.manifests[-1]) if names.manifests else None
        if newest is None:
            return None
        last_ns = newest.written_unix_ns
        added = {one.chunk.name: one.written_unix_ns for one in state.added}
        for manifest in self._from_oldest(names, state):
            chunks = state.chunks_of(manifest)
            for chunk in chunks:
                limit = retention.limit_ns(chunk.tenant, now)
                written = added.get(chunk.name, manifest.written_unix_ns)
                if written < limit and (manifest.name not in protected or last_ns < limit):
                    removed.append(Removed.of(chunk, now))
            left = manifest.first == newest.first or not self._is_over(
                manifest, chunks, state, retention.latest_ns(now)
            )
            leading = leading and not left
            if leading:
                oldest = manifest.last + 1
            elif manifest.written_unix_ns > retention.latest_ns(now) or len(removed) >= REMOVED_AT_ONCE:
                break
        if not removed and oldest == state.oldest:
            return None
        return self._edit(partition, state, now, oldest=oldest, removed=tuple(removed[:REMOVED_AT_ONCE]))

    def _is_over(self, manifest: Manifest, chunks: Sequence[ChunkEntry], state: EditState, latest_ns: int) -> bool:
        """Whether a manifest has nothing left, and for so long that nobody reads it, nor puts one under its name."""
        if chunks or manifest.written_unix_ns >= latest_ns - self.grace_ns:
            return False
        removed = (one.name for one in manifest.chunks if one.name in state.removed)
        return all(self._is_unread(manifest.partition, name) for name in removed)

    def _is_unread(self, partition: int, removed: str) -> bool:
        """Whether a removed chunk has been seen to be so for longer than any question lasts."""
        seen_ns = self._removed.get(partition, {}).get(removed)
        return seen_ns is not None and self._clocks.has_passed(seen_ns, self.grace_ns)

    def _window(self, partition: int) -> set[str]:
        """Manifests whose spans a new owner reads for its deduplication window."""
        worker = self._settings.worker
        found = commit.read_mark(self._store, self._topic, partition)
        within = commit.window_manifests(self._store, found, window_s=worker.window_s, keys_max=worker.window_keys_max)
        return {one.name for one in within}

    def _delete(self, partition: int, names: Listed, state: EditState, done: Kept) -> None:
        """Delete the objects of chunks that have been seen removed for long, and manifests that count no more."""
        now_ns, seen = self._clocks.steady_ns(), self._removed.get(partition, {})
        self._removed[partition] = {name: seen.get(name, now_ns) for name in state.removed}
        deleted = self._deleted.setdefault(partition, set())
        for one in state.removed.values():
            if one.name not in deleted and self._is_unread(partition, one.name):
                for name in one.objects:
                    self._store.remove(one.bucket, name)
                    done.objects_deleted += 1
                deleted.add(one.name)
        deleted &= state.removed.keys()
        gone = [first for first in map(_first, names.manifests) if first < state.oldest]
        for first in gone:
            self._store.remove(self._store.buckets[0], manifest_name(self._topic, partition, first))
        done.gone = tuple(gone)

    def _draw_together(self, partition: int, names: Listed, state: EditState) -> None:
        """A checkpoint every so many edits, without removals that nobody need know any more."""
        before = max((0, *names.checkpoints))
        if state.sequence - before < self._settings.housekeeping.checkpoint_edits:
            return
        deleted = self._deleted.get(partition, set())
        own = {name for name in deleted if (parsed := parse_chunk_object(name)) and parsed[2] < state.oldest}
        edit_log.draw_together(self._store, self._topic, partition, state.without(own))

    # ---- sweep

    def _sweep(self, partition: int, stop: threading.Event, done: Kept) -> None:
        """Delete chunks that nothing names: of attempts that lost or died.

        First a fence: an edit that somebody else has prepared is refused from there on, so that what was listed before
        and has no name then never gets one. Ranges not stored yet, from the mark on, are let alone.
        """
        seen_ns, unnamed = self._clocks.steady_ns(), self._unnamed.setdefault(partition, {})
        found = list(self._chunk_objects(partition))
        if not found:
            return
        _, state = edit_log.read(self._store, self._topic, partition)
        fence = self._edit(partition, state, self._clocks.unix_ns())
        if stop.is_set() or not edit_log.put(self._store, fence):
            return
        done.edited = True
        marked = commit.read_mark(self._store, self._topic, partition)
        if marked.edits.sequence < fence.sequence:
            return
        named = self._named(marked)
        orphans = {(bucket, name) for bucket, name, first in found if name not in named and first < marked.mark}
        for gone in unnamed.keys() - {name for _, name in orphans}:
            del unnamed[gone]
        for bucket, name in sorted(orphans):
            if stop.is_set():
                return
            if unnamed.setdefault(name, seen_ns) <= seen_ns - self.grace_ns:
                self._store.remove(bucket, name)
                done.orphans_deleted += 1
                log.info("orphan_deleted", partition=partition, name=name)
        telemetry.ORPHANS_DELETED.inc(done.orphans_deleted)

    def _chunk_objects(self, partition: int) -> Iterator[tuple[str, str, int]]:
        """(bucket, name, first offset) of the partition's chunks, whoever named them."""
        for bucket in self._store.buckets:
            for one in self._store.list(bucket, CHUNKS_PREFIX):
                parsed = parse_chunk_object(one.name)
                if parsed is not None and parsed[:2] == (self._topic, partition):
                    yield bucket, one.name, parsed[2]

    def _named(self, marked: commit.Found) -> set[str]:
        """Every object that counts, or did and is deleted in its own time."""
        named = {name for one in marked.edits.removed.values() for name in one.objects}
        for one in marked.edits.added:
            named.update(one.chunk.objects)
        for manifest in map(self._read, marked.names):
            for chunk in manifest.chunks if manifest else ():
                named.update(chunk.objects)
        return named

    # ---- compaction

    def _compact(self, partition: int, stop: threading.Event, done: Kept) -> None:
        """Merge what is small and old, a group an edit. Refused: another owner is at it, and what was written goes.

        After an unknown outcome the chunk stays, since the edit may stand, or come late; a sweep finds it out.
        """
        names, state = edit_log.read(self._store, self._topic, partition)
        retention, keeping = self._retention(), self._settings.housekeeping
        age_ns = max(self.grace_ns, int(keeping.compaction_after_h * HOUR_NS))
        planned = self._compactor.plan(
            partition,
            lambda: self._from_oldest(names, state),
            state,
            self._window(partition),
            kept_ns=retention.kept_ns,
            old_unix_ns=self._clocks.unix_ns() - age_ns,
        )
        for group in planned:
            if stop.is_set() or len(state.removed) > REMOVED_MAX:
                return
            compacted = self._compactor.merged(partition, group, state, stop)
            if compacted is None:
                continue
            now = self._clocks.unix_ns()
            removed = tuple(Removed.of(one, now) for one in compacted.parts)
            edit = self._edit(partition, state, now, removed=removed, added=(compacted.added,))
            if stop.is_set() or not edit_log.put(self._store, edit):
                self._compactor.remove(compacted)
                return
            state = state.after(edit)
            done.edited, done.chunks_merged = True, done.chunks_merged + len(removed)
            self._compactor.count(compacted)

    # ---- what is damaged

    def _look_again(self, partition: int, stop: threading.Event, done: Kept) -> None:
        """Tell readers of chunks that were found damaged, or whole again."""
        names, state = edit_log.read(self._store, self._topic, partition)
        found = self.slow_check.look(partition, names.manifests, state, stop)
        if any(found) and not stop.is_set():
            edit = self._edit(partition, state, self._clocks.unix_ns(), damaged=found.damaged, mended=found.mended)
            if edit_log.put(self._store, edit):
                state, done.edited = state.after(edit), True
        self.slow_check.tell(partition, len(state.damaged))

    # ---- all of it

    def _edit(self, partition: int, state: EditState, now: int, **changes: Any) -> Edit:
        """The next edit; changes: as Edit has them."""
        return Edit(
            topic=self._topic,
            partition=partition,
            sequence=state.sequence + 1,
            token=secrets.token_hex(TOKEN_BYTES),
            worker=self._worker,
            written_unix_ns=now,
            **changes,
        )

    def _from_oldest(self, names: Listed, state: EditState) -> Iterator[Manifest]:
        for name in names.manifests:
            if _first(name) >= state.oldest and (manifest := self._read(name)) is not None:
                yield manifest

    def _read(self, name: str) -> Manifest | None:
        return commit.read_manifest(self._store, name)


def _first(name: str) -> int:
    parsed = parse_manifest_name(name)
    assert parsed is not None
    return parsed[2]
