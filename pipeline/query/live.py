"""Live segments of the workers: asked for over HTTP, kept as they came, asked for again only from where they end."""

from __future__ import annotations

import asyncio
import time
from asyncio import IncompleteReadError
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import aiohttp

from pipeline import telemetry
from pipeline.doors.outgoing import Outgoing
from pipeline.query.blocks import Block, BrokenAnswerError, LiveSegment, Loss, arrived, compacted, read_blocks, to_keep
from pipeline.query.owners import Owners
from topics.errors import KafkaUnavailableError

State = Literal["held", "not_owner", "away"]
A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAnswer:
    """What is known of one partition from its owner.

    state: `held`, the segments are gap-free from the offset asked for up to `next`, unless `low` is higher: then the
    worker has dropped what is stored meanwhile. `not_owner`, `away`: nobody answered; all is to be read from Kafka.
    assigned: which assignment of the partition they are from.
    cut: the segments take more memory than allowed; those after the last one given are left out.
    """

    partition: int
    state: State
    url: str = ""
    assigned: int = 0
    low: int = 0
    next: int = 0
    segments: tuple[LiveSegment, ...] = ()
    losses: tuple[Loss, ...] = ()
    cut: bool = False


RAW_BYTES_MAX = 1 << 20  # of an answer, before it is unpacked: beyond, it would be held twice
Ask = Callable[[str, Mapping[int, int]], Awaitable[dict[int, LiveAnswer]]]


@dataclass(slots=True)
class _Copy:
    """Segments of one partition kept between queries, gap-free from `start` to `next`."""

    url: str
    assigned: int
    start: int
    next: int
    segments: list[LiveSegment] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(segment.nbytes for segment in self.segments)


class LiveClient:
    """Asks the owners of partitions. Belongs to one event loop; `close` it.

    bytes_max bounds the copies kept and, apart from them, what one query holds. A worker is asked once for all its
    partitions, and `reach` gives it wait_s. Merging copies runs in `executor`.
    """

    def __init__(
        self,
        owners: Owners,
        *,
        bytes_max: int,
        timeout_s: float,
        executor: Executor,
        wait_s: float = 0.0,
        outgoing: Outgoing | None = None,
    ) -> None:
        """outgoing: what it shows to workers, and how it checks them."""
        self._outgoing = outgoing
        self._owners = owners
        self._wait_s = wait_s
        self._bytes_max = bytes_max
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s)
        self._executor = executor
        self._session: aiohttp.ClientSession | None = None
        self._copies: dict[int, _Copy] = {}  # least recently used first
        self._locks: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        """Close the connections and forget the copies."""
        self._copies.clear()
        self._owners.close()
        if self._session is not None:
            await self._session.close()

    @property
    def nbytes(self) -> int:
        """Bytes of the copies kept."""
        return sum(copy.nbytes for copy in self._copies.values())

    async def look_up_owners(self) -> None:
        """Ask the group who they are, if that is not known: then nobody waits for it later. Never raises."""
        with suppress(KafkaUnavailableError):
            await self._owners.all()

    async def reach(self, until: Mapping[int, int]) -> None:
        """Wait until the owners have taken what lies below until[partition], wait_s at most. Never raises."""

        async def wait(url: str, mine: list[int]) -> None:
            params = {"until": _pairs({p: until[p] for p in mine}), "wait_s": str(self._wait_s)}
            try:
                async with self._client().get(f"{url}/live", params=params) as answer:
                    await answer.read()
            except TimeoutError:
                self._owners.silent(url)  # the question itself need not wait for it again
            except (aiohttp.ClientError, OSError):
                pass

        if self._wait_s and until:
            by_url = await self._owners.of(until)
            await asyncio.gather(*(wait(url, mine) for url, mine in by_url.items()))

    async def segments(self, after: Mapping[int, int]) -> dict[int, LiveAnswer]:
        """All live rows of each partition from the offset `after[partition]` on."""
        return await self._ask_owners(after, self._segments_of)

    async def trace(self, after: Mapping[int, int], trace_id: bytes) -> dict[int, LiveAnswer]:
        """The live rows of one trace; the worker looks for them, nothing is kept."""

        async def ask(url: str, wants: Mapping[int, int]) -> dict[int, LiveAnswer]:
            return await self._collect(url, wants, self._bytes_max, {"trace_id": trace_id.hex()})

        return await self._ask_owners(after, ask)

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        """Any other page of a worker: status, body, content type. Raises aiohttp.ClientError, TimeoutError."""
        async with self._client().get(url, params=dict(params), headers=dict(headers)) as answer:
            return answer.status, await answer.read(), answer.content_type

    async def _ask_owners(self, after: Mapping[int, int], ask: Ask) -> dict[int, LiveAnswer]:
        """Ask; whoever says that it is not the owner (any more) is looked up anew and the new owner asked, once."""
        answers = {partition: LiveAnswer(partition=partition, state="not_owner") for partition in after}
        unanswered = set(after)
        newer_than_s: float | None = None
        for _attempt in range(2):
            asked_s = time.monotonic()
            by_url = await self._owners.of(unanswered, newer_than_s=newer_than_s)
            parts = await asyncio.gather(*(ask(url, {p: after[p] for p in mine}) for url, mine in by_url.items()))
            for part in parts:
                answers.update(part)
            # Away (refused, silent): read from Kafka at once; the group would name the same dead member again.
            unanswered = {p for part in parts for p, answer in part.items() if answer.state == "not_owner"}
            if not unanswered:
                break
            newer_than_s = asked_s
        return answers

    # ---- copies

    async def _segments_of(self, url: str, wants: Mapping[int, int]) -> dict[int, LiveAnswer]:
        async with self._locks.setdefault(url, asyncio.Lock()):
            kept = {p: copy for p, after in wants.items() if (copy := self._usable(p, url, after)) is not None}
            asks = {p: kept[p].next if p in kept else after for p, after in wants.items()}
            held = sum(copy.nbytes for copy in kept.values())
            answers = await self._collect(url, asks, max(0, self._bytes_max - held), {})
            # Of another assignment: what it says is lost, or is the first copy of a span, need not be what we keep.
            anew = {p: wants[p] for p in kept if answers[p].state == "held" and answers[p].assigned != kept[p].assigned}
            if anew:
                answers |= await self._collect(url, anew, self._bytes_max, {})
            joined = await self._joined(answers, {p: copy for p, copy in kept.items() if p not in anew}, wants)
            while self._copies and self.nbytes > self._bytes_max:
                del self._copies[next(iter(self._copies))]
            return joined

    def _usable(self, partition: int, url: str, after: int) -> _Copy | None:
        copy = self._copies.get(partition)
        return copy if copy is not None and copy.url == url and copy.start <= after <= copy.next else None

    async def _joined(
        self, answers: Mapping[int, LiveAnswer], kept: Mapping[int, _Copy], wants: Mapping[int, int]
    ) -> dict[int, LiveAnswer]:
        """What was kept and what came, of each partition from wants[partition] on; the new copies."""
        found, segments = dict(answers), dict[int, list[LiveSegment]]()
        for partition, answer in answers.items():
            self._copies.pop(partition, None)
            copy, after = kept.get(partition), wants[partition]
            gap = answer.low > (after if copy is None else copy.next)
            if answer.state == "held" and not gap:
                older = [] if copy is None else [segment for segment in copy.segments if segment.last >= after]
                segments[partition] = [*older, *answer.segments]
        # All in one turn of a thread: a turn takes some milliseconds where the CPU is scarce
        grown = {partition: segments[partition] for partition in segments if answers[partition].segments}
        segments |= await self._off_loop(_each_compacted, grown) if grown else {}
        for partition, held in segments.items():
            answer = answers[partition]
            if not answer.cut:
                copy = _Copy(answer.url, answer.assigned, wants[partition], answer.next, held)
                self._copies[partition] = copy
            losses = tuple(dict.fromkeys(loss for segment in held for loss in segment.losses)) + answer.losses
            low = min(answer.low, wants[partition])
            found[partition] = replace(answer, segments=tuple(held), low=low, losses=losses)
        return found

    # ---- one answer of one worker

    async def _collect(
        self, url: str, wants: Mapping[int, int], bytes_max: int, params: Mapping[str, str]
    ) -> dict[int, LiveAnswer]:
        """Ask one worker. Partitions that it did not answer for to the end are `away`."""
        answers = {partition: LiveAnswer(partition=partition, state="away", url=url) for partition in wants}
        segments: dict[int, list[LiveSegment]] = {partition: [] for partition in wants}
        assigned: dict[int, int] = {}
        held = raw = 0
        try:
            async for block in self._blocks(url, wants, params):
                found = segments[block.partition]
                if block.owner and assigned.setdefault(block.partition, block.assigned) != block.assigned:
                    raise BrokenAnswerError(f"{url} loaded partition {block.partition} anew while it answered")
                if block.first is not None and block.last is not None:
                    held += len(block.ipc)
                    if held > bytes_max:
                        answers |= _cut(url, wants, answers, segments, assigned)
                        break
                    telemetry.LIVE_BLOCK_BYTES.inc(len(block.ipc))
                    found.append(arrived(block.first, block.last, block.spans, block.losses, block.ipc))
                    raw += len(block.ipc)
                    if raw >= RAW_BYTES_MAX and "trace_id" not in params:
                        await self._off_loop(_unpack, segments)
                        raw = 0
                else:
                    answers[block.partition] = _ended(url, block)
        except TimeoutError:
            self._owners.silent(url)
        except (aiohttp.ClientError, BrokenAnswerError, IncompleteReadError, OSError):
            pass  # refused or broken off: the owner is gone
        return {p: replace(a, segments=tuple(segments[p])) if a.state == "held" else a for p, a in answers.items()}

    async def _blocks(self, url: str, wants: Mapping[int, int], params: Mapping[str, str]) -> AsyncIterator[Block]:
        async with self._client().get(f"{url}/live", params={"want": _pairs(wants), **params}) as answer:
            if answer.status != 200:
                raise BrokenAnswerError(f"{url} answered {answer.status}")
            async for block in read_blocks(answer.content):
                if block.partition in wants:
                    yield block

    async def _off_loop(self, work: Callable[[A], R], given: A) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, given)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            outgoing = self._outgoing
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers=outgoing.headers if outgoing else {},
                connector=aiohttp.TCPConnector(ssl=outgoing.tls if outgoing else True),
            )
        return self._session


def _each_compacted(segments: Mapping[int, list[LiveSegment]]) -> dict[int, list[LiveSegment]]:
    return {partition: compacted(some) for partition, some in segments.items()}


def _unpack(segments: Mapping[int, list[LiveSegment]]) -> None:
    """Those that are as they came, to the form that is kept."""
    for some in segments.values():
        some[:] = map(to_keep, some)


def _pairs(offsets: Mapping[int, int]) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in offsets.items())


def _ended(url: str, block: Block) -> LiveAnswer:
    """What a partition's last block says; its segments are beside it."""
    if not block.owner:
        return LiveAnswer(partition=block.partition, state="not_owner", url=url)
    return LiveAnswer(
        partition=block.partition,
        state="held",
        url=url,
        assigned=block.assigned,
        low=block.low,
        next=block.next,
        losses=block.losses,
    )


def _cut(
    url: str,
    wants: Mapping[int, int],
    answers: Mapping[int, LiveAnswer],
    segments: Mapping[int, list[LiveSegment]],
    assigned: Mapping[int, int],
) -> dict[int, LiveAnswer]:
    """Answers for the partitions that were not read to their end because memory ended."""
    return {
        partition: LiveAnswer(
            partition=partition,
            state="held",
            url=url,
            assigned=assigned.get(partition, 0),
            low=after,
            next=segments[partition][-1].last + 1 if segments[partition] else after,
            cut=True,
        )
        for partition, after in wants.items()
        if answers[partition].state == "away"
    }
