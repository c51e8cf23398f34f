"""Counts a load back through the querier: every span of every trace, by its ID."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import numpy.typing as npt
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from agents.load.blocks import Load
from agents.load.tasks import first_error
from agents.trace_answer import TraceAnswer, read_answer
from pipeline.doors.outgoing import Outgoing, named
from pipeline.serve.headers import COPIES_HEADER
from topics.errors import QuerierUnavailableError

EXAMPLES_MAX = 20
POLL_S = 0.25
REQUEST_TIMEOUT_S = 60.0
ASK_AGAIN_S = 30.0  # a querier that does not answer
PROTOBUF = "application/protobuf"


@dataclass(frozen=True, slots=True)
class Expected:
    """One trace: spans that must be there, and spans that may be, since their request was never acknowledged."""

    trace_id: bytes
    required: frozenset[bytes]
    allowed: frozenset[bytes]


@dataclass(slots=True)
class Counted:
    """What was counted back. missing, doubled, unexpected: spans; examples: `<trace ID> <span ID>`, twenty at most."""

    traces: int = 0
    spans: int = 0
    missing: int = 0
    doubled: int = 0
    unexpected: int = 0
    partial: int = 0
    seconds: float = 0.0
    examples: dict[str, list[str]] = field(default_factory=dict)
    partial_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def exact(self) -> bool:
        """Every span there once, and every answer complete."""
        return not (self.missing or self.doubled or self.unexpected or self.partial)

    def note(self, kind: str, trace_id: bytes, span_ids: list[bytes]) -> int:
        """Keep examples of what is wrong; how many there are."""
        kept = self.examples.setdefault(kind, []) if span_ids else []
        kept += [f"{trace_id.hex()} {span_id.hex()}" for span_id in span_ids[: EXAMPLES_MAX - len(kept)]]
        return len(span_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whom to ask. settle_s: a trace that lacks spans is asked for again so long; 0: once."""

    url: str
    tenant: str = ""
    outgoing: Outgoing | None = None
    connections: int = 8
    settle_s: float = 30.0


def expected(load: Load, acknowledged: Mapping[int, npt.NDArray[np.bool_]] | None) -> Iterator[Expected]:
    """Every trace of the load. acknowledged: as in Sent; None: every request was."""
    for block in range(load.blocks):
        requests = load.template(block).requests
        sure = np.ones(len(requests), np.bool_) if acknowledged is None else acknowledged[block]
        required: dict[int, set[bytes]] = {}
        allowed: dict[int, set[bytes]] = {}
        for request, acked in zip(requests, sure, strict=True):
            ids = request.span_ids.tobytes()
            for place, trace in enumerate(request.trace_index.tolist()):
                span_id = ids[8 * place : 8 * place + 8]
                allowed.setdefault(trace, set()).add(span_id)
                if acked:
                    required.setdefault(trace, set()).add(span_id)
        for trace, trace_id in enumerate(load.trace_ids(block)):
            must = frozenset(required.get(trace, ()))
            yield Expected(trace_id.tobytes(), must, frozenset(allowed.get(trace, ())))


async def check(
    load: Load,
    acknowledged: Mapping[int, npt.NDArray[np.bool_]] | None,
    question: Question,
    progress: Callable[[Counted], None] = lambda _counted: None,
) -> Counted:
    """Ask for every trace of the load by its ID and compare. Raises QuerierUnavailableError."""
    counted, started = Counted(), time.monotonic()
    deadline = started + question.settle_s
    traces = expected(load, acknowledged)
    session = aiohttp.ClientSession(
        headers={"Accept": PROTOBUF} | named(question.tenant, question.outgoing),
        connector=aiohttp.TCPConnector(
            limit=question.connections, ssl=question.outgoing.tls if question.outgoing else True
        ),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
    )

    async def work() -> None:
        for trace in traces:  # one generator for all: each takes the next trace
            compare(counted, trace, await _settled(session, question.url, trace, deadline))
            progress(counted)

    with first_error():
        async with session, asyncio.TaskGroup() as group:
            for _ in range(question.connections):
                group.create_task(work())
    counted.seconds = time.monotonic() - started
    return counted


def compare(counted: Counted, trace: Expected, answer: TraceAnswer) -> None:
    """Count one trace."""
    found = Counter(answer.span_ids())
    counted.traces += 1
    counted.spans += sum(found.values())
    counted.missing += counted.note("missing", trace.trace_id, sorted(trace.required - found.keys()))
    counted.unexpected += counted.note("unexpected", trace.trace_id, sorted(found.keys() - trace.allowed))
    doubled = sorted(span_id for span_id, copies in found.items() if copies > 1)
    counted.doubled += counted.note("doubled", trace.trace_id, doubled) + answer.copies
    if answer.copies and not doubled:
        counted.note("doubled", trace.trace_id, [b""])  # the answer holds each once, and not which of them are
    if answer.partial:
        counted.partial += 1
        counted.partial_reasons[answer.message] += 1


async def _settled(session: aiohttp.ClientSession, url: str, trace: Expected, deadline: float) -> TraceAnswer:
    """The answer, asked for again while spans are missing and the deadline is not over."""
    while True:
        answer = await _ask(session, url, trace.trace_id)
        whole = not answer.partial and trace.required <= set(answer.span_ids())
        if whole or time.monotonic() > deadline:
            return answer
        await asyncio.sleep(POLL_S)


async def _ask(session: aiohttp.ClientSession, url: str, trace_id: bytes) -> TraceAnswer:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(QuerierUnavailableError),
        wait=wait_random_exponential(multiplier=0.1, max=2.0),
        stop=stop_after_delay(ASK_AGAIN_S),
        reraise=True,
    ):
        with attempt:
            return await _get(session, f"{url}/api/v2/traces/{trace_id.hex()}")
    raise AssertionError("the retry loop ends by its return")


async def _get(session: aiohttp.ClientSession, url: str) -> TraceAnswer:
    try:
        async with session.get(url) as answer:
            said = await answer.read()
            if answer.status != 200:
                raise QuerierUnavailableError(f"{url} answered {answer.status}: {said[:300].decode(errors='replace')}")
            return read_answer(said, int(answer.headers.get(COPIES_HEADER, "0")))
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
        raise QuerierUnavailableError(f"{url} does not answer: {exc or type(exc).__name__}") from exc
