"""A caller that goes away: nobody works on for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from topics.errors import CallerGoneError

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled, and CallerGoneError raised, when the caller closes the connection.

    The request's body must have been read, or be of no interest: what is left of it is dropped.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise CallerGoneError("the caller has closed the connection")
        return await working
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working])


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
