"""A search as server-sent events: `found` with the first traces of those found so far, again and again, in the end
`answer` with what the JSON answer says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from starlette.responses import StreamingResponse

from pipeline.query.search import Heard, SearchAnswer
from pipeline.serve import tempo
from pipeline.serve.answers import count_partial
from pipeline.serve.asked import Asked
from pipeline.serve.tail_events import HEADERS, MEDIA_TYPE, event
from topics.errors import SpanstreamError

FOUND_MAX = 200  # traces of an event `found`; the answer has all
Find = Callable[[Heard], Awaitable[SearchAnswer]]
InThread = Callable[[Callable[[], bytes]], Awaitable[Any]]
log = structlog.get_logger("querier")


async def stream(find: Find, every_s: float, in_thread: InThread) -> StreamingResponse:
    """The answer, as soon as its first event is there: what goes wrong before is raised."""
    events = _events(find, every_s, in_thread)
    return StreamingResponse(_after(await anext(events), events), media_type=MEDIA_TYPE, headers=HEADERS)


async def _events(find: Find, every_s: float, in_thread: InThread) -> AsyncIterator[bytes]:
    """every_s: what is found meanwhile is looked at so often; nothing is kept for a slow reader."""
    async with Asked(find) as asked:
        told = None
        async for found in asked.so_far(every_s):
            if found is not None and found is not told:
                told = found
                yield event("found", {"traces": [tempo.search_hit(one) for one in told[:FOUND_MAX]]})
        answer = await asked.answer
        count_partial("search", answer.reasons)
        yield await in_thread(lambda: event("answer", tempo.search(answer)))


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A question that fails on the way ends with an event `failed`, the sentence in `message`."""
    try:
        yield first
        async for one in rest:
            yield one
    except SpanstreamError as exc:
        yield event("failed", {"message": str(exc)})
    except Exception:
        log.exception("search_failed")
        yield event("failed", {"message": "internal error: see the querier's log"})
