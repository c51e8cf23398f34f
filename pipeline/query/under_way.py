"""Queries under way: each waits for its turn, is listed, and can be cancelled by who may."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.doors.overrides import Overrides
from pipeline.query.turns import Lane, TurnLimits, Turns
from topics.errors import QueryCancelledError, UnknownQueryError
from topics.settings import QuerierSettings

TEXT_MAX = 2000


@dataclass(slots=True)
class Query:
    """One query. stop: ends it from outside; cancelled: somebody did."""

    tenants: tuple[str, ...]
    kind: str
    text: str
    stop: Callable[[], object]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    began_s: float = field(default_factory=time.monotonic)
    began_unix_ms: int = field(default_factory=lambda: time.time_ns() // 10**6)
    running: bool = False
    cancelled: bool = False

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id,
            "tenants": list(self.tenants),
            "kind": self.kind,
            "text": self.text,
            "state": "cancelled" if self.cancelled else "running" if self.running else "waiting",
            "startedUnixMs": self.began_unix_ms,
            "ageMs": int((time.monotonic() - self.began_s) * 1000),
        }


class UnderWay:
    """The queries of this process. Belongs to one event loop."""

    def __init__(self, querier: QuerierSettings, overrides: Overrides) -> None:
        self._overrides = overrides
        self._timeout_s = querier.query_timeout_s
        self._queries: dict[str, Query] = {}

        def turns(running: int, tenant_running: int, setting: str) -> Turns:
            limits = TurnLimits(running, tenant_running, querier.waiting_max, querier.tenant_waiting_max, setting)
            return Turns(limits, self._own_running)

        self._turns = {
            Lane.TRACE: turns(querier.traces_max, querier.tenant_queries_max, "querier.traces_max"),
            Lane.SHORT: turns(querier.short_queries_max, querier.tenant_queries_max, "querier.short_queries_max"),
            Lane.LONG: turns(querier.queries_max, querier.tenant_queries_max, "querier.queries_max"),
            Lane.SQL: turns(querier.sql_queries_max, querier.sql_queries_max, "querier.sql_queries_max"),
        }

    def _own_running(self, tenants: str) -> int | None:
        """Queries at a time that tenants, joined by |, have been given of their own, the least of them."""
        own = (self._overrides.of(tenant).queries_max for tenant in tenants.split("|"))
        return min((one for one in own if one is not None), default=None)

    @asynccontextmanager
    async def turn(self, tenants: Sequence[str], kind: str, text: str, lane: Lane = Lane.LONG) -> AsyncIterator[Query]:
        """A query's time from here to the block's end, its turn awaited. Raises what `Turns.take` raises, and
        QueryCancelledError when somebody has cancelled it.
        """
        query, leave = await self.enter(tenants, kind, text, lane)
        try:
            with Cancellable(query):
                yield query
        finally:
            leave()

    async def enter(self, tenants: Sequence[str], kind: str, text: str, lane: Lane) -> tuple[Query, Callable[[], None]]:
        """A query whose end is where the second is called, once; until its `stop` is set it is the task that is
        cancelled.
        """
        turns, tenant = self._turns[lane], "|".join(tenants)
        query = Query(tuple(tenants), kind, text[:TEXT_MAX], _nothing)
        self._queries[query.id] = query
        try:
            with Cancellable(query):
                await turns.take(tenant, self._timeout_s)
        except BaseException:
            del self._queries[query.id]
            raise
        query.running = True

        def leave() -> None:
            del self._queries[query.id]
            turns.give_back(tenant)

        return query, leave

    @contextmanager
    def listed(self, tenants: Sequence[str], kind: str, text: str, stop: Callable[[], object]) -> Iterator[None]:
        """The same for what takes no place, since it is bounded elsewhere: it is in the list, and `stop` ends it."""
        query = Query(tuple(tenants), kind, text[:TEXT_MAX], stop, running=True)
        self._queries[query.id] = query
        try:
            yield
        finally:
            del self._queries[query.id]

    def told(self, tenants: Sequence[str] | None) -> list[dict[str, Any]]:
        """The queries about these tenants alone, None for all, the oldest first."""
        own = None if tenants is None else set(tenants)
        return [one.told() for one in self._queries.values() if own is None or set(one.tenants) <= own]

    def cancel(self, number: str) -> dict[str, Any]:
        """End a query; what it was. Raises UnknownQueryError."""
        query = self._queries.get(number)
        if query is None:
            raise UnknownQueryError(f"no query has the ID {number[:40]!a}: it has ended, or is another querier's")
        query.cancelled = True
        query.stop()
        return query.told()


class Cancellable:
    """While it lasts, `query.stop` cancels the task that is in it, and its end is QueryCancelledError.

    As asyncio.timeout does: a task that was cancelled by others besides stays cancelled.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._before = task, task.cancelling()
        self._query.stop = task.cancel

    def __exit__(self, kind: type[BaseException] | None, _error: object, _where: object) -> None:
        self._query.stop = _nothing
        if self._query.cancelled and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise QueryCancelledError("the query was cancelled by an administrator")


def _nothing() -> None:
    """There is nothing to stop."""
