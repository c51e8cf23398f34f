"""Sends a load by OTLP/HTTP: at a rate, over several connections, again what was not acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from agents.load.blocks import Block, Load
from agents.load.tasks import first_error
from pipeline.doors.outgoing import Outgoing, named
from topics.errors import LoadRefusedError, ReceiverUnavailableError

_response: Any = trace_service_pb2.ExportTraceServiceResponse
RETRY_STATUS = frozenset({408, 429, 502, 503, 504})
REQUEST_TIMEOUT_S = 60.0
TOLD_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and how fast: url of OTLP/HTTP without /v1/traces; spans_per_s 0: as fast as it goes."""

    url: str
    tenant: str = ""
    outgoing: Outgoing | None = None
    spans_per_s: float = 0.0
    connections: int = 4
    give_up_s: float = 60.0
    """A request not acknowledged after so long counts as not acknowledged."""


@dataclass(slots=True)
class Sent:
    """What became of a load. `acknowledged[b][i]`: request i of block b was answered with 200."""

    spans: int = 0
    spans_acknowledged: int = 0
    spans_rejected: int = 0
    requests: int = 0
    bytes: int = 0
    retries: int = 0
    seconds: float = 0.0
    problem: str = ""
    acknowledged: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)


Progress = Callable[[Sent], None]


async def send(load: Load, target: Target, progress: Progress = lambda _sent: None) -> Sent:
    """Send every block once; progress is told after every request.

    A request that gets 429 or 503, or no answer, is sent again until give_up_s: its first try may have been written,
    so there may be copies on Kafka. Raises LoadRefusedError where the receiver says that a request is wrong, and
    ReceiverUnavailableError where the first request of all was not acknowledged: the others would wait as long.
    """
    await asyncio.to_thread(load.prepare)  # before the clock starts, so that the rate is kept
    sent, started = Sent(), time.monotonic()
    queue: asyncio.Queue[tuple[int, int, bytes, int] | None] = asyncio.Queue(4 * target.connections)
    headers = {"Content-Type": "application/x-protobuf"} | named(target.tenant, target.outgoing)
    session = aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=target.connections, ssl=target.outgoing.tls if target.outgoing else True),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
    )
    with first_error():
        async with session, asyncio.TaskGroup() as group:
            for _ in range(target.connections):
                group.create_task(_work(session, target, queue, sent, progress))
            async for block in _blocks(load):
                sent.acknowledged[block.index] = np.zeros(len(block.bodies), np.bool_)
                for index, body in enumerate(block.bodies):
                    await _keep_pace(sent, target.spans_per_s, started)
                    spans = len(block.template.requests[index].span_ids)
                    sent.spans += spans
                    sent.requests += 1
                    sent.bytes += len(body)
                    await queue.put((block.index, index, body, spans))
            for _ in range(target.connections):
                await queue.put(None)
    sent.seconds = time.monotonic() - started
    return sent


async def _blocks(load: Load) -> AsyncIterator[Block]:
    for index in range(load.blocks):
        yield await asyncio.to_thread(load.block, index, time.time_ns())


async def _keep_pace(sent: Sent, spans_per_s: float, started: float) -> None:
    if spans_per_s:
        await asyncio.sleep(max(0.0, started + sent.spans / spans_per_s - time.monotonic()))


async def _work(
    session: aiohttp.ClientSession,
    target: Target,
    queue: asyncio.Queue[tuple[int, int, bytes, int] | None],
    sent: Sent,
    progress: Progress,
) -> None:
    while (item := await queue.get()) is not None:
        block, index, body, spans = item
        try:
            rejected = await _until_acknowledged(session, target, body, sent)
        except ReceiverUnavailableError as exc:
            if not any(requests.any() for requests in sent.acknowledged.values()):
                told = f"{exc}. Nothing was acknowledged within {target.give_up_s:g} s"
                raise ReceiverUnavailableError(told) from exc
            sent.problem = str(exc)
        else:
            sent.acknowledged[block][index] = True
            sent.spans_acknowledged += spans - rejected
            sent.spans_rejected += rejected
        progress(sent)


async def _until_acknowledged(session: aiohttp.ClientSession, target: Target, body: bytes, sent: Sent) -> int:
    """How many of its spans were rejected. Raises ReceiverUnavailableError after give_up_s."""

    def count(_state: RetryCallState) -> None:
        sent.retries += 1

    backoff = wait_random_exponential(multiplier=0.1, max=2.0)

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told_s = error.retry_after_s if isinstance(error, ReceiverUnavailableError) else None
        return backoff(state) if told_s is None else told_s

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(ReceiverUnavailableError),
        wait=wait_s,
        stop=stop_after_delay(target.give_up_s),
        before_sleep=count,
        reraise=True,
    ):
        with attempt:
            return await _post(session, target.url, body)
    raise AssertionError("the retry loop ends by its return")


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> int:
    try:
        async with session.post(f"{url}/v1/traces", data=body) as answer:
            said = await answer.read()
            if answer.status == 200:
                return int(_response.FromString(said).partial_success.rejected_spans)
            sentence = f"{url} answered {answer.status}: {told_by(said)}"
            if answer.status in RETRY_STATUS:
                raise ReceiverUnavailableError(sentence, _seconds(answer.headers.get("Retry-After")))
            raise LoadRefusedError(sentence)
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
        raise ReceiverUnavailableError(f"{url} does not answer: {exc or type(exc).__name__}") from exc


def told_by(body: bytes) -> str:
    """What a receiver says of a request that it does not take: the message of google.rpc.Status, else the text."""
    try:
        message = status_pb2.Status.FromString(body).message
    except DecodeError:
        message = ""
    return str(message or body.decode(errors="replace"))[:TOLD_CHARACTERS_MAX]


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
