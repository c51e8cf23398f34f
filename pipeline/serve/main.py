"""The querier process: its allocator first, then everything that takes memory."""

from __future__ import annotations

import asyncio

from pipeline.allocator import give_memory_back
from pipeline.query.imports import do_without_pandas
from topics.settings import Settings


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Answer until `stop` is set. Who calls chooses the event loop and the signals."""
    give_memory_back()
    do_without_pandas()
    from pipeline.serve.querier import answer_until  # Arrow reads its allocator's name when it is loaded

    await answer_until(settings, stop)
