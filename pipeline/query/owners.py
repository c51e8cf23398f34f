"""Which worker owns a partition: the consumer group knows, and is asked at most once in a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from topics.errors import KafkaUnavailableError

AGAIN_S = 0.5
Ask = Callable[[], dict[int, str]]


class Owners:
    """Partition -> URL of its owner's table endpoint, remembered for `refresh_s`.

    ask: asks Kafka; blocks, so it runs in a thread, once for all who wait. When Kafka does not answer, what was known
    last still counts: who follows an outdated URL is refused or told so, and reads the partition from Kafka instead.
    Then a task asks again until it answers, and nobody waits.
    A URL that timed out is left alone for `quiet_s`, since each query would wait for it again.
    """

    def __init__(self, ask: Ask, *, refresh_s: float, quiet_s: float) -> None:
        self._ask = ask
        self._refresh_s = refresh_s
        self._quiet_s = quiet_s
        self._known: dict[int, str] = {}
        self._heard_s = -1e9
        self._quiet_until_s: dict[str, float] = {}
        self._lock = asyncio.Lock()
        self._asking_again: asyncio.Task[None] | None = None

    async def of(self, partitions: Iterable[int], *, newer_than_s: float | None = None) -> dict[str, list[int]]:
        """URL -> its partitions among `partitions`; those without a (responsive) owner are left out.

        newer_than_s: a time of time.monotonic() that the answer must be newer than, after a worker said it is not
        the owner any more.
        """
        known = await self._fresh(newer_than_s)
        now_s = time.monotonic()
        found: dict[str, list[int]] = {}
        for partition in partitions:
            url = known.get(partition, "")
            if url.startswith("http") and self._quiet_until_s.get(url, 0.0) <= now_s:
                found.setdefault(url, []).append(partition)
        return found

    async def all(self) -> dict[int, str]:
        """Every partition that has an owner, with its URL."""
        return dict(await self._fresh(None))

    def close(self) -> None:
        """Ask no more."""
        if self._asking_again is not None:
            self._asking_again.cancel()

    def silent(self, url: str) -> None:
        """The worker at `url` did not answer in time."""
        self._quiet_until_s[url] = time.monotonic() + self._quiet_s

    async def _fresh(self, newer_than_s: float | None) -> dict[int, str]:
        oldest_s = time.monotonic() - self._refresh_s if newer_than_s is None else newer_than_s
        if self._heard_s >= oldest_s:
            return self._known
        async with self._lock:
            if self._heard_s < oldest_s and self._asking_again is None:
                try:
                    await self._hear()
                except KafkaUnavailableError:
                    if self._heard_s < 0:
                        raise
                    self._asking_again = asyncio.create_task(self._ask_again(), name="owners")
                now_s = time.monotonic()
                self._quiet_until_s = {url: until_s for url, until_s in self._quiet_until_s.items() if until_s > now_s}
        return self._known

    async def _hear(self) -> None:
        asked_s = time.monotonic()
        self._known = await asyncio.to_thread(self._ask)
        self._heard_s = asked_s

    async def _ask_again(self) -> None:
        try:
            answered = False
            while not answered:
                await asyncio.sleep(AGAIN_S)
                with suppress(KafkaUnavailableError):
                    await self._hear()
                    answered = True
        finally:  # whatever ends it, the next question asks
            self._asking_again = None
