"""What a query sees: of each partition the chunks below offset H, and every row from H to the end of the topic.

Rows from H on come from the partition's owner, which is given a moment to reach the end of the topic; what it has not
reached, or all where nobody answers, from Kafka. So nothing is seen twice or missed. H is the end of the catalog's
gap-free run of manifests; rows are cut by the offset of their record, since a segment may lie on both sides of H. The
ends of the topic are those of the time when the question came, or later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.blocks import LiveSegment, Loss
from pipeline.query.conditions import Need
from pipeline.query.live import LiveAnswer, LiveClient
from pipeline.query.tail import Ends, TailRead
from pipeline.query.tail_copies import TailCopies
from pipeline.query.unpacked import Unpacked
from pipeline.spans import schema
from topics.errors import FormatVersionError, KafkaUnavailableError, MalformedRecordError, StoreUnavailableError
from topics.partitioner import partitions_of

T = TypeVar("T")
CATALOG_TRIES = 2
AGAIN_S = 0.5
UNKNOWN = (StoreUnavailableError, MalformedRecordError, FormatVersionError)


class Horizons(Protocol):
    """The catalog, as far as a snapshot needs it. Both may block."""

    def horizons(self) -> dict[int, int]:
        """Partition -> H, for the partitions that have a manifest."""

    def refresh(self, partition: int) -> None:
        """List the bucket's manifests after H. Raises what UNKNOWN names."""

    def edition(self) -> int:
        """Another number whenever edits begin to count."""

    def unread(self, partition: int) -> list[str]:
        """What is below H and not known, in sentences."""


class Tail(Protocol):
    """The topic, as far as a snapshot needs it; pipeline.query.tail.TailReader says what each does. All block."""

    def ends(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]: ...
    def read(
        self, after: Mapping[int, int], ends: Ends, known: Mapping[int, Sequence[LiveSegment]]
    ) -> dict[int, TailRead]: ...
    def read_trace(self, after: Mapping[int, int], ends: Ends, trace_id: bytes) -> dict[int, TailRead]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionView:
    """One partition from `horizon` on. url: the owner that answered; empty: nobody did.

    live: what the owner gave, up to `reached`. tail: what was read from Kafka after it.
    """

    partition: int
    horizon: int
    url: str = ""
    reached: int = 0
    live: tuple[LiveSegment, ...] = ()
    tail: tuple[LiveSegment, ...] = ()

    @property
    def segments(self) -> tuple[LiveSegment, ...]:
        """All of them, in offset order."""
        return self.live + self.tail


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """All partitions asked for. reasons: sentences that say why it is not complete; losses: offsets lost for good."""

    partitions: dict[int, PartitionView] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    losses: dict[int, list[Loss]] = field(default_factory=dict)
    unpacked: Unpacked = field(default_factory=lambda: Unpacked(0))

    @property
    def horizons(self) -> dict[int, int]:
        """Partition -> H."""
        return {partition: view.horizon for partition, view in self.partitions.items()}

    def told_losses(self) -> list[str]:
        """Offsets lost for good, in sentences."""
        return [
            f"Kafka deleted offsets {first} to {last} of partition {partition} before they were stored"
            for partition, losses in self.losses.items()
            for first, last in losses
        ]

    def rows(
        self,
        columns: Sequence[str],
        tenant: str,
        trace_ids: pa.Array | None = None,
        fits: Callable[[Container[str]], bool] | None = None,
        needs: Sequence[Need] = (),
        since: Mapping[int, int] | None = None,
    ) -> pa.Table:
        """The rows after H of a tenant (and of some traces) with these columns, typed as schema.type_of says.

        fits: whether a segment with such columns is wanted; needs: what its rows must meet to be; since: of each
        partition only offsets from there on. The order is that of partitions and offsets. Only the columns asked for
        are unpacked.
        """
        parts = [
            rows
            for view in self._views(trace_ids)
            for segment in view.segments
            if (fits is None or fits(segment.column_names))
            and self._meets(segment, needs)
            and (rows := self._rows_of(segment, _first(view, since), columns, tenant, trace_ids)) is not None
        ]
        return pa.concat_tables([self.no_rows(columns), *parts])

    def by_cover(self, tenant: str, range_ns: tuple[int, int] | None) -> tuple[list[LiveSegment], Snapshot]:
        """Segments of which all rows are the tenant's, lie after H and start in the range (None: of all times).

        And a snapshot of the others.
        """
        covered, others = list[LiveSegment](), dict[int, PartitionView]()
        for partition, view in self.partitions.items():
            whole = [one for one in view.segments if _is_covered(one, view.horizon, tenant, range_ns)]
            known = {one.serial for one in whole}
            live, tail = (tuple(one for one in some if one.serial not in known) for some in (view.live, view.tail))
            others[partition] = replace(view, live=live, tail=tail)
            covered += whole
        return covered, replace(self, partitions=others)

    def of_segment(
        self,
        segment: LiveSegment,
        columns: Sequence[str],
        fits: Callable[[Container[str]], bool],
        needs: Sequence[Need] = (),
    ) -> pa.Table:
        """The rows of one that `by_cover` gave, as `rows` gives them."""
        found = None
        if fits(segment.column_names) and self._meets(segment, needs):
            found = self._rows_of(segment, segment.first_row, columns, segment.tenant, None)
        return self.no_rows(columns) if found is None else found

    def has_rows(self) -> bool:
        """Is there any row?"""
        return self.has_rows_from({})

    def has_rows_from(self, since: Mapping[int, int]) -> bool:
        """Is there any row at these offsets or later?"""
        return any(
            segment.spans and segment.last >= _first(view, since)
            for view in self.partitions.values()
            for segment in view.segments
        )

    def _meets(self, segment: LiveSegment, needs: Sequence[Need]) -> bool:
        """Looks at the columns of the needed values alone: most segments have none, and no more is unpacked of them."""
        return all(need.met_in(self.unpacked.read(segment, [column for column, _ in need.values])) for need in needs)

    def _views(self, trace_ids: pa.Array | None) -> list[PartitionView]:
        """The partitions of these traces; all of them where none are given. For a snapshot of all partitions."""
        if trace_ids is None or not len(trace_ids):
            return list(self.partitions.values())
        numbers = np.unique(partitions_of(schema.bytes_of(trace_ids, 16), len(self.partitions)))
        return [self.partitions[int(number)] for number in numbers]

    def _rows_of(
        self, segment: LiveSegment, horizon: int, columns: Sequence[str], tenant: str, trace_ids: pa.Array | None
    ) -> pa.Table | None:
        """Some columns of a segment's rows, all of the asked types; None where there are none."""
        if not segment.spans or segment.last < horizon:
            return None
        at = None
        if trace_ids is not None:
            at = _rows_of_traces(self.unpacked.read(segment, ["trace_id"]).column("trace_id"), trace_ids)
            if not len(at):
                return None
        rows = self.unpacked.read(segment, dict.fromkeys((*columns, "tenant", "trace_id", "record_offset")))
        rows = filtered(rows if at is None else rows.take(pa.array(at)), horizon, tenant, None)
        if not rows.num_rows:
            return None
        return pa.table({name: _typed(schema.column(rows, name), schema.type_of(name)) for name in columns})

    def column_names(self) -> set[str]:
        """Every column that some segment has."""
        return {name for view in self.partitions.values() for segment in view.segments for name in segment.column_names}

    @staticmethod
    def no_rows(columns: Sequence[str]) -> pa.Table:
        """An empty table of these columns: joined with chunks it gives each column that no chunk has."""
        return pa.table({name: pa.array([], schema.type_of(name)) for name in columns})

    def spans(self, tenant: str, trace_id: bytes) -> list[tuple[PartitionView, LiveSegment, pa.Table]]:
        """The rows of one trace with all columns, and where they come from."""
        only = pa.array([trace_id], pa.binary(16))
        found = []
        for view in self.partitions.values():
            for segment in view.segments:
                rows = filtered(segment.read(), view.horizon, tenant, only)
                if rows.num_rows:
                    found.append((view, segment, rows))
        return found


def _is_covered(segment: LiveSegment, horizon: int, tenant: str, range_ns: tuple[int, int] | None) -> bool:
    if not segment.serial or segment.tenant != tenant or segment.first_row < horizon:
        return False
    first_ns, last_ns = segment.starts_ns
    return range_ns is None or (range_ns[0] <= first_ns and last_ns <= range_ns[1])


def _first(view: PartitionView, since: Mapping[int, int] | None) -> int:
    return view.horizon if since is None else max(view.horizon, since.get(view.partition, 0))


def _rows_of_traces(ids: pa.ChunkedArray, wanted: pa.Array) -> npt.NDArray[np.int64]:
    """The rows that have one of these trace IDs. Their last two bytes tell of most that they have none: in a tenth of
    the time that it takes to look at all of an ID.
    """
    ends = np.zeros(1 << 16, dtype=bool)
    ends[schema.bytes_of(wanted, 16).view(np.uint16)[:, -1]] = True
    at = np.flatnonzero(ends[schema.bytes_of(ids, 16).view(np.uint16)[:, -1]])
    found: npt.NDArray[np.int64] = at[pc.is_in(ids.take(pa.array(at)), value_set=wanted).to_numpy()]
    return found


def filtered(rows: pa.Table, horizon: int, tenant: str, trace_ids: pa.Array | None) -> pa.Table:
    """The rows of a tenant, of these traces, at offset `horizon` or later; they stand in the order of offsets."""
    if trace_ids is not None:
        rows = rows.filter(pc.is_in(rows.column("trace_id"), value_set=trace_ids))
    if rows.num_rows and rows.column("record_offset")[0].as_py() < horizon:
        rows = rows.filter(pc.greater_equal(rows.column("record_offset"), horizon))
    if rows.num_rows and rows.column("tenant").unique().to_pylist() != [tenant]:
        rows = rows.filter(pc.equal(rows.column("tenant"), tenant))
    return rows


def _typed(values: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    return values if values.type == type_ else values.cast(type_)


class _Shared:
    """A snapshot that several questions wait for: up to the ends that each of them found, or further."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Snapshot] | None = None
        self.ends: dict[int, tuple[int, int]] = {}
        self.reasons: list[str] = []

    def add(self, ends: Ends, reasons: list[str]) -> None:
        """Another question; before the snapshot is begun."""
        for partition, (low, end) in ends.items():
            lowest, furthest = self.ends.get(partition, (low, end))
            self.ends[partition] = (max(low, lowest), max(end, furthest))
        self.reasons += [reason for reason in reasons if reason not in self.reasons]


class Snapshots:
    """Takes snapshots. What blocks runs in `executor`.

    partitions: of the keyed topic. unpacked_bytes_max: of columns kept unpacked between questions; tails of partitions
    without owner are kept up to twice as much, since then there are fewer copies of what owners hold.
    """

    def __init__(
        self,
        catalog: Horizons,
        live: LiveClient,
        tail: Tail,
        *,
        partitions: int,
        executor: Executor,
        unpacked_bytes_max: int = 0,
    ) -> None:
        self._catalog = catalog
        self._live = live
        self._tail = tail
        self._partitions = partitions
        self._executor = executor
        self.unpacked = Unpacked(unpacked_bytes_max)
        self._copies = TailCopies(2 * unpacked_bytes_max)
        self._current: _Shared | None = None
        self._next: _Shared | None = None  # waits for `_current` to be taken
        self._silent: dict[int, str] = {}  # partition -> why Kafka did not tell its end
        self._asking_again: asyncio.Task[None] | None = None

    async def take(self) -> Snapshot:
        """Every row after H of every partition.

        Each question finds out the topic's ends and gives the owners a moment to reach them; what they hold is then
        asked for once for all questions that wait meanwhile.
        """
        reasons: list[str] = []
        ends, _ = await asyncio.gather(self._ends(range(self._partitions), reasons), self._live.look_up_owners())
        await self._live.reach({partition: end for partition, (_, end) in ends.items()})
        if self._next is None:
            self._next = _Shared()
            self._next.task = asyncio.create_task(self._after(self._current, self._next), name="snapshot")
        shared = self._next
        shared.add(ends, reasons)
        assert shared.task is not None
        return await asyncio.shield(shared.task)

    async def _after(self, before: _Shared | None, shared: _Shared) -> Snapshot:
        if before is not None and before.task is not None:
            await asyncio.wait([before.task])
        self._current, self._next = shared, None
        horizons = self.horizons(range(self._partitions))
        snapshot = Snapshot(unpacked=self.unpacked, reasons=shared.reasons)
        return await self._completed(snapshot, shared.ends, horizons, await self._ask(horizons), b"")

    async def take_trace(self, partition: int, trace_id: bytes) -> Snapshot:
        """The rows after H of one trace. The owner answers while Kafka says where the topic ends."""
        snapshot, horizons = Snapshot(unpacked=self.unpacked), self.horizons([partition])
        ends, answers = await asyncio.gather(self._ends([partition], snapshot.reasons), self._ask(horizons, trace_id))
        return await self._completed(snapshot, ends, horizons, answers, trace_id)

    async def reaching_back(self, snapshot: Snapshot, since: Mapping[int, int]) -> Snapshot:
        """The snapshot, of these partitions with the rows from since[partition] on, which lies below their H.

        Owners hold what is stored for worker.drop_grace_s. `horizon` stays H where they have it no more.
        """
        views = dict(snapshot.partitions)
        for partition, answer in (await self._live.segments(since)).items():
            first = since[partition]
            if not answer.cut and _reached(answer, first) >= views[partition].horizon:
                views[partition] = PartitionView(
                    partition=partition, horizon=first, url=answer.url, reached=answer.next, live=answer.segments
                )
        return replace(snapshot, partitions=views)

    def horizons(self, partitions: Iterable[int]) -> dict[int, int]:
        """H of each partition as the catalog knows it; 0 where nothing is stored."""
        held = self._catalog.horizons()
        return {partition: held.get(partition, 0) for partition in partitions}

    def edition(self) -> int:
        """Which edits count."""
        return self._catalog.edition()

    async def changed_since(self, edition: int, partitions: Iterable[int]) -> bool:
        """Whether edits began to count since, once these partitions were looked at."""
        for partition in partitions:
            with suppress(*UNKNOWN):
                await self.in_thread(lambda partition=partition: self._catalog.refresh(partition))  # type: ignore[misc]
        return self.edition() != edition

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what blocks off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _completed(
        self, snapshot: Snapshot, ends: Ends, horizons: dict[int, int], answers: dict[int, LiveAnswer], trace_id: bytes
    ) -> Snapshot:
        """What the owners said, with the rows that they have not reached; `horizons` may rise."""
        for _attempt in range(CATALOG_TRIES):
            # The worker has dropped what is stored: the catalog is behind the bucket.
            behind = [p for p, a in answers.items() if a.state == "held" and a.low > horizons[p]]
            if not behind:
                break
            await self._refresh(behind, horizons, snapshot)
            answers |= await self._ask({p: horizons[p] for p in behind}, trace_id)
        late = [p for p, (low, _) in ends.items() if low > _reached(answers[p], horizons[p])]
        if late:  # Kafka has deleted it: it must be stored by then, or it is lost
            await self._refresh(late, horizons, snapshot)
        after = {p: _reached(answers[p], horizons[p]) for p in ends if not answers[p].cut}
        tails = await self._read_tails({p: at for p, at in after.items() if at < ends[p][1]}, ends, answers, trace_id)
        for partition, answer in answers.items():
            self._add(snapshot, answer, tails.get(partition), horizons[partition])
            snapshot.reasons += [one for one in self._catalog.unread(partition) if one not in snapshot.reasons]
        return snapshot

    async def _ask(self, horizons: Mapping[int, int], trace_id: bytes = b"") -> dict[int, LiveAnswer]:
        return await (self._live.trace(horizons, trace_id) if trace_id else self._live.segments(horizons))

    async def _refresh(self, partitions: Sequence[int], horizons: dict[int, int], snapshot: Snapshot) -> None:
        """Bring H of these partitions up to the manifests in the bucket."""
        for partition in partitions:
            try:
                await self.in_thread(lambda partition=partition: self._catalog.refresh(partition))  # type: ignore[misc]
            except UNKNOWN as exc:
                snapshot.reasons.append(f"what is stored of partition {partition} is not all known: {exc}")
        horizons.update(self.horizons(partitions))

    async def _ends(self, partitions: Iterable[int], reasons: list[str]) -> dict[int, tuple[int, int]]:
        """Those that Kafka tells. Where it did not answer, a task asks again until it does, and nobody waits."""
        wanted, silent = list(partitions), dict[int, str]()

        def ask() -> dict[int, tuple[int, int]]:
            silent.update({p: why for p in wanted if (why := self._silent.get(p))})
            return self._tail.ends([p for p in wanted if p not in silent])

        try:
            found = await self.in_thread(ask)
        except KafkaUnavailableError as exc:
            found, silent = {}, dict.fromkeys(wanted, str(exc))
            self._silent |= silent
            if self._asking_again is None:
                self._asking_again = asyncio.create_task(self._ask_again(), name="ends")
        reasons += [f"what the workers have not reached is missing: {why}" for why in dict.fromkeys(silent.values())]
        return found

    async def _ask_again(self) -> None:
        """One by one: where one broker of several is away, the others' partitions are told of."""
        try:
            while self._silent:
                await asyncio.sleep(AGAIN_S)
                for partition in list(self._silent):
                    with suppress(KafkaUnavailableError):
                        await self.in_thread(lambda partition=partition: self._tail.ends([partition]))  # type: ignore[misc]
                        del self._silent[partition]
        finally:  # whatever ends it, the next question asks
            self._silent.clear()
            self._asking_again = None

    def close(self) -> None:
        """Ask Kafka no more, and end the snapshots under way: their threads end next."""
        if self._asking_again is not None:
            self._asking_again.cancel()
        for shared in (self._current, self._next):
            if shared is not None and shared.task is not None:
                shared.task.cancel()

    async def _read_tails(
        self,
        after: Mapping[int, int],
        ends: Mapping[int, tuple[int, int]],
        answers: Mapping[int, LiveAnswer],
        trace_id: bytes,
    ) -> dict[int, TailRead]:
        if not after:
            return {}
        if trace_id:
            return await self.in_thread(lambda: self._tail.read_trace(after, ends, trace_id))
        self._copies.forget({p: answer.state == "held" for p, answer in answers.items()})
        return await self.in_thread(lambda: self._read_rows(after, ends, answers))

    def _read_rows(
        self, after: Mapping[int, int], ends: Ends, answers: Mapping[int, LiveAnswer]
    ) -> dict[int, TailRead]:
        """Tails of owned partitions are small and change at once; those of others are kept and read on."""
        begin, known = dict(after), {p: answers[p].segments for p in after}
        orphans = [p for p in after if answers[p].state != "held"]
        for partition in orphans:
            begin[partition], known[partition] = self._copies.known(partition, after[partition])
        found = self._tail.read(begin, ends, known)
        for partition in orphans:
            found[partition] = self._copies.keep(partition, after[partition], known[partition], found[partition])
        return found

    @staticmethod
    def _add(snapshot: Snapshot, answer: LiveAnswer, tail: TailRead | None, horizon: int) -> None:
        live = answer.segments if answer.low <= horizon else ()
        if answer.cut:
            snapshot.reasons.append(
                f"live segments of partition {answer.partition} from offset {answer.next} on are left out: "
                "they take more memory than querier.live_bytes_max"
            )
        losses = [loss for loss in answer.losses if loss[1] >= horizon]
        if tail is not None:
            losses += tail.losses
            snapshot.reasons += tail.reasons
        if losses:
            snapshot.losses[answer.partition] = sorted(set(losses))
        snapshot.partitions[answer.partition] = PartitionView(
            partition=answer.partition,
            horizon=horizon,
            url=answer.url if answer.state == "held" else "",
            reached=tail.reached if tail is not None else _reached(answer, horizon),
            live=live if answer.state == "held" else (),
            tail=tuple(tail.segments) if tail is not None else (),
        )


def _reached(answer: LiveAnswer, horizon: int) -> int:
    """First offset that the owner's answer does not hold: all from H on where there is no answer or it has a gap."""
    if answer.state != "held" or answer.low > horizon:
        return horizon
    return max(horizon, answer.next)
