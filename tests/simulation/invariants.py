"""What must hold, whatever goes wrong: looked at with each object stored, each offset committed, each answer given."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from pipeline.store import chunk
from pipeline.store.edits import Edit, edit_number
from pipeline.store.manifest import ChunkEntry, Manifest, parse_manifest_name
from tests.simulation.kafka import Entry, SpanKey
from tests.simulation.querier import Answer, keys_of

if TYPE_CHECKING:
    from tests.simulation.world import World

CHECK_EVERY = 20  # steps between two looks at what the workers and the catalog hold


class Violation(Exception):  # noqa: N818 - what the simulation is there to find
    """A promise was broken."""


class Invariants:
    """The truth, kept beside the code: what was acknowledged (the logs) and what is stored (the manifests)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.marks = [0] * len(world.kafka.logs)
        self.manifests: list[list[Manifest]] = [[] for _ in world.kafka.logs]
        self.lost: set[tuple[int, int]] = set()  # named in a manifest
        self.named: set[str] = set()  # objects that count
        self.spans: dict[str, list[SpanKey]] = {}  # of chunks that count
        self.merged = 0
        self.stored: dict[SpanKey, list[int]] = defaultdict(list)  # record times of what was stored, as late as can be
        self.answers: Counter[str] = Counter()
        self.horizons: dict[int, int] = {}
        world.buckets.on_put, world.buckets.on_remove = self.put, self.removed

    # ---- the store

    def put(self, name: str, data: bytes) -> None:
        """An object begins to exist, or to be another one."""
        if parse_manifest_name(name):
            self._manifest(name, Manifest.from_json(data))
        elif edit_number(name):
            self._edit(Edit.from_json(data))
        elif name in self.named and self._world.object(name) != data:
            raise Violation(f"{name}, which a manifest names, is written over")

    def removed(self, name: str) -> None:
        """An object is deleted."""
        if name in self.named:
            raise Violation(f"{name}, which a manifest or an edit names, is deleted")

    def _edit(self, edit: Edit) -> None:
        """Chunks in others' place hold what those held, each span once. What they held may be deleted."""
        gone = {one.name: one.objects for one in edit.removed}
        if strange := gone.keys() - self.spans.keys():
            raise Violation(f"{edit.name} removes {min(strange)}, which does not count")
        held = [span for name in gone for span in self.spans[name]]
        for one in edit.added:
            objects = {one.chunk.name, one.chunk.traces_name, one.chunk.filter_name}
            if any(self._world.object(name) is None for name in objects):
                raise Violation(f"{edit.name} stands before its chunk {one.chunk.name}")
            self.named |= objects
            self.merged += 1
            content = self._world.object(one.chunk.name) or b""
            found = self.spans[one.chunk.name] = keys_of(chunk.read_chunk(content, chunk.KEY_COLUMNS), one.chunk.tenant)
            if sorted(found) != sorted(set(held)):
                raise Violation(f"{one.chunk.name} holds {len(found)} spans, its parts {len(set(held))}")
        for name, objects in gone.items():
            del self.spans[name]
            self.named -= set(objects)

    def _manifest(self, name: str, manifest: Manifest) -> None:
        partition, log = manifest.partition, self._world.kafka.logs[manifest.partition]
        mark = self.marks[partition]
        if manifest.first != mark or manifest.last < manifest.first or name != manifest.name:
            what = "overlaps" if manifest.first < mark else "leaves a gap"
            raise Violation(f"{name} [{manifest.first}, {manifest.last}] {what}: stored up to {mark}")
        if manifest.last >= log.end:
            raise Violation(f"{name} names offset {manifest.last}, the log ends at {log.end}")
        lost = {at for first, last in manifest.losses for at in range(first, last + 1)}
        if any(at >= log.start or not manifest.first <= at <= manifest.last for at in lost):
            raise Violation(f"{name} names {manifest.losses} as lost, the log begins at {log.start}")
        self.marks[partition] = manifest.last + 1
        self.manifests[partition].append(manifest)
        self.lost |= {(partition, at) for at in lost}
        records = [(at, log.entries[at]) for at in range(manifest.first, manifest.last + 1)]
        for entry in manifest.chunks:
            self._chunk(name, entry, [one for _, one in records if one is not None])
        for at, record in records:
            if record is not None and at not in lost:
                for span in record.spans:
                    if span not in self.stored:
                        raise Violation(f"{name} covers offset {at}, whose span {span} is not stored")

    def _chunk(self, name: str, entry: ChunkEntry, records: list[Entry]) -> None:
        objects = {entry.name, entry.traces_name, entry.filter_name}
        if any(self._world.object(one) is None for one in objects):
            raise Violation(f"{name} stands before its chunk {entry.name}")
        self.named |= objects
        found = keys_of(chunk.read_chunk(self._world.object(entry.name) or b"", chunk.KEY_COLUMNS), entry.tenant)
        self.spans[entry.name] = found
        if len(found) != len(set(found)) or len(found) != entry.spans:
            raise Violation(f"{entry.name}: a span stands twice in it, or {entry.spans} is not their number")
        for span in found:
            times = [record.time_ns for record in records if span in record.spans]
            if not times:
                raise Violation(f"{entry.name} holds {span}, which no record of its range has")
            if self.stored[span] and max(times) - self.stored[span][-1] <= self._world.window_ns:
                raise Violation(f"{entry.name}: {span} is stored twice within the window")
            self.stored[span].append(min(times))

    # ---- Kafka

    def committed(self, partition: int, offset: int) -> None:
        """An offset was committed for the group."""
        log = self._world.kafka.logs[partition]
        between = log.entries[max(log.start, self.marks[partition]) : offset]
        if any(between) and partition not in self._world.kafka.ran_ahead:
            raise Violation(f"partition {partition}: {offset} is committed, stored up to {self.marks[partition]}")

    # ---- what processes hold

    def look(self) -> None:
        """Between two steps."""
        for worker in self._world.workers.values():
            if worker.process.errors:
                raise Violation(worker.process.errors[0])
            for number, owned in worker.worker.owned.items():
                if (state := owned.state) is None:
                    continue
                if state.mark > self.marks[number]:
                    raise Violation(f"{worker.name} takes {state.mark} for the mark, stored up to {self.marks[number]}")
                at = state.low
                for segment in state.segments:
                    if segment.first > at or (segment.first < at and segment is not state.segments[0]):
                        raise Violation(f"{worker.name} partition {number}: segment {segment.first} follows {at}")
                    at = segment.last + 1
                if at != state.next and state.segments:
                    raise Violation(f"{worker.name} partition {number}: segments end at {at}, next is {state.next}")
        querier = self._world.querier
        if querier.process.errors:
            raise Violation(querier.process.errors[0])
        for number, horizon in querier.catalog.horizons().items():
            if horizon > self.marks[number]:
                raise Violation(f"the catalog's horizon is {horizon}, stored up to {self.marks[number]}")
        if self._world.problems:
            raise Violation(self._world.problems[0])

    # ---- answers

    def asked(self, tenant: str, trace_id: bytes | None) -> dict[SpanKey, set[tuple[int, int]]]:
        """What an answer to a question that comes now must hold: acknowledged spans, and where they stand."""
        found: dict[SpanKey, set[tuple[int, int]]] = defaultdict(set)
        for partition, log in enumerate(self._world.kafka.logs):
            for at, record in enumerate(log.entries):
                for span in () if record is None else record.spans:
                    if span.tenant == tenant and trace_id in (None, span.trace_id):
                        found[span].add((partition, at))
        return found

    def answered(self, what: str, wanted: dict[SpanKey, set[tuple[int, int]]], answer: Answer, tenant: str) -> None:
        """Compare: complete and exact, or it says why not."""
        self.answers["PARTIAL" if answer.reasons else "exact"] += 1
        sent = set(self.asked(tenant, None))
        if invented := set(answer.spans) - sent:
            raise Violation(f"{what}: nobody sent {sorted(invented)[0]}")
        # A copy that no worker has reached yet stands beside the stored span: questions count by key, or say so.
        for parts in (answer.stored + answer.live, answer.live + answer.tail):
            copies = [span for span, count in Counter(parts).items() if count > 1 + self._late_copies(span)]
            if copies:
                raise Violation(f"{what}: {copies[0]} is given twice")
        if answer.reasons:
            if not self._world.faults.struck and not self._world.excuse(answer.reasons):
                raise Violation(f"{what}: PARTIAL though nothing went wrong: {answer.reasons}")
            return
        lost = self.lost | answer.lost
        missing = [span for span, places in wanted.items() if not places <= lost]
        if missing := [span for span in missing if span not in set(answer.spans)]:
            raise Violation(f"{what}: misses {missing[0]} at {sorted(wanted[missing[0]])}")

    def _late_copies(self, span: SpanKey) -> int:
        """How many copies of a span came later than the window after the one before."""
        times = sorted(
            record.time_ns
            for log in self._world.kafka.logs
            for record in log.entries
            if record is not None and span in record.spans
        )
        count, newest = 0, times[0]
        for time in times:
            if time - newest > self._world.window_ns:
                count, newest = count + 1, time
        return count

    # ---- the end

    def ends(self) -> list[int]:
        """Where each partition must be stored up to at last."""
        return [
            max((at + 1 for at, record in enumerate(log.entries) if record is not None or at < log.start), default=0)
            for log in self._world.kafka.logs
        ]

    def settled(self) -> str:
        """What is still to come when nothing goes wrong any more; empty: nothing."""
        if missing := self._world.querier.feed.missing():
            return f"the querier's catalog: {missing}"
        horizons = self._world.querier.catalog.horizons()
        for partition, end in enumerate(self.ends()):
            mark = self.marks[partition]
            if mark < end:
                return f"partition {partition} is stored up to {mark} of {end}"
            if horizons.get(partition, 0) < mark:
                return f"the catalog knows partition {partition} up to {horizons.get(partition, 0)} of {mark}"
            committed = self._world.kafka.committed.get(partition, 0)
            if committed < end and self._world.kafka.logs[partition].start < end:
                return f"partition {partition} is committed up to {committed} of {mark}"
        return ""

    def dead_letters(self) -> None:
        """Every record that cannot be stored was set aside, unless it was lost; and no other."""
        dead = {(partition, offset) for partition, offset, _ in self._world.kafka.dead}
        for partition, log in enumerate(self._world.kafka.logs):
            for at, record in enumerate(log.entries):
                if record is None or (partition, at) in self.lost:
                    continue
                if record.bad != ((partition, at) in dead):
                    raise Violation(f"partition {partition} offset {at}: {'not ' * record.bad}set aside")
