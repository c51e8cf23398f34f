"""A Housekeeper whose clock and retention a test turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.store.housekeeping import Housekeeper, Retention
from tests.pipeline.store.memory_store import HOUR_NS, T0, TOPIC
from topics.settings import Settings


def new_keeper(
    settings: Settings, store: Any, now_h: Callable[[], float], retention: Callable[[], Retention], **more: Any
) -> Housekeeper:
    """now_h: hours after T0."""
    return Housekeeper(
        settings,
        store,
        topic=TOPIC,
        worker="w",
        clock_ns=lambda: T0 + int(now_h() * HOUR_NS),
        retention=retention,
        **more,
    )
