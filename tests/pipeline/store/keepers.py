"""A Housekeeper whose clocks and retention a test turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.clocks import Clocks
from pipeline.store.housekeeping import Housekeeper, Retention
from tests.pipeline.store.memory_store import HOUR_NS, T0, TOPIC
from topics.settings import Settings


def new_keeper(
    settings: Settings,
    store: Any,
    now_h: Callable[[], float],
    retention: Callable[[], Retention],
    *,
    set_by_h: Callable[[], float] = lambda: 0.0,
    **more: Any,
) -> Housekeeper:
    """now_h: hours after T0; set_by_h: how far the wall clock was set."""
    return Housekeeper(
        settings,
        store,
        topic=TOPIC,
        worker="w",
        clocks=Clocks(
            lambda: T0 + int((now_h() + set_by_h()) * HOUR_NS),
            lambda: int(now_h() * HOUR_NS),
        ),
        retention=retention,
        **more,
    )
