"""What needs Kafka, the store or room on the disk is tried until it is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, before_sleep_nothing, retry_if_exception_type, wait_random_exponential

from pipeline import telemetry
from topics.errors import DiskFullError, KafkaUnavailableError, StoreUnavailableError

log = structlog.get_logger(__name__)
T = TypeVar("T")
AWAY = (StoreUnavailableError, KafkaUnavailableError, DiskFullError)
DISK = "disk"
ASSIGNMENT = "assignment"


class Waits:
    """Waits of a worker, with growing pauses of at most longest_s. told: what is waited for at the moment -> why."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self.told: dict[str, str] = {}

    async def until_there(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Try for ever; who lets go cancels the task."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(AWAY),
            wait=wait_random_exponential(multiplier=0.2, max=self._longest_s),
            before_sleep=before_sleep_nothing,
            reraise=True,
        ):
            with attempt:
                try:
                    found = await call()
                except AWAY as error:
                    self.failed(what, error)
                    raise
                self.told.pop(what, None)
                return found
        raise AssertionError("the retry loop ends by its return")

    def failed(self, what: str, error: Exception) -> None:
        """A try failed; tell it."""
        telemetry.AWAY.labels(what=what).inc()
        log.warning("waiting", what=what, error=str(error))
        self.told[what] = str(error)
