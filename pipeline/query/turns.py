"""Who is next: questions wait for a place in turn, tenant by tenant, so that nobody waits for another's queue."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from topics.errors import OverloadedError, QueryTimeoutError, RateLimitedError

TIMEOUT = "the query took longer than querier.query_timeout_s and was ended"


class Lane(Enum):
    """What has places, threads and memory of its own, so that nobody in it waits for others.

    TRACE: traces by ID. SHORT: questions that read few bytes of chunks, of which most do not know it beforehand: they
    begin here. LONG: other questions.
    """

    TRACE = auto()
    SHORT = auto()
    LONG = auto()
    SQL = auto()


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """running: at a time, of all tenants and of one; waiting: likewise. setting: what `running` is called."""

    running: int
    tenant_running: int
    waiting: int
    tenant_waiting: int
    setting: str


class Turns:
    """Places and those who wait for one. Belongs to one event loop.

    A free place goes to the tenant that has the fewest; among equals to the one that was served longest ago. Within a
    tenant, first come, first served.
    """

    def __init__(self, limits: TurnLimits, own_running: Callable[[str], int | None] = lambda _tenant: None) -> None:
        """own_running: what a tenant has in the place of limits.tenant_running, None for nothing."""
        self._limits, self._own_running = limits, own_running
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # in the order in which tenants are served

    async def take(self, tenant: str, timeout_s: float) -> None:
        """Wait for a place; `give_back` it. Raises RateLimitedError where too many of the tenant wait, OverloadedError
        where too many do in all, QueryTimeoutError after timeout_s.
        """
        if tenant not in self._waiting and self._is_free_for(tenant):
            self._running[tenant] += 1
            return
        self._check_waiting(tenant)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(place)
        except BaseException as exc:
            if place.done():
                self.give_back(tenant)  # it was given one while it was leaving
            else:
                self._leave(tenant, place)
            raise QueryTimeoutError(TIMEOUT) if isinstance(exc, TimeoutError) else exc  # noqa: B904

    def give_back(self, tenant: str) -> None:
        """Let the next one in."""
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        self._go_behind(tenant)
        while (next_ := self._next()) is not None:
            place = self._waiting[next_].popleft()
            self._go_behind(next_)
            self._running[next_] += 1
            place.set_result(None)

    def _go_behind(self, tenant: str) -> None:
        """A tenant that has had a place waits behind the others."""
        if waiting := self._waiting.pop(tenant, None):
            self._waiting[tenant] = waiting

    def _next(self) -> str | None:
        able = [tenant for tenant in self._waiting if self._is_free_for(tenant)]
        return min(able, key=lambda tenant: self._running[tenant], default=None)

    def _is_free_for(self, tenant: str) -> bool:
        limits, own = self._limits, self._own_running(tenant)
        tenant_running = limits.tenant_running if own is None else own
        return self._running.total() < limits.running and self._running[tenant] < tenant_running

    def _check_waiting(self, tenant: str) -> None:
        limits, own = self._limits, len(self._waiting.get(tenant, ()))
        if own >= limits.tenant_waiting:
            raise RateLimitedError(
                f"too many outstanding requests: {own} queries of tenant {tenant} wait already, and"
                " querier.tenant_waiting_max allows no more. Ask again when some have ended"
            )
        waiting = sum(map(len, self._waiting.values()))
        if waiting >= limits.waiting:
            raise OverloadedError(
                f"{waiting} queries wait for one of {limits.running} places ({limits.setting}), and"
                " querier.waiting_max allows no more"
            )

    def _leave(self, tenant: str, place: asyncio.Future[None]) -> None:
        waiting = self._waiting[tenant]
        waiting.remove(place)
        if not waiting:
            del self._waiting[tenant]
