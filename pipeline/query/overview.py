"""How things stand, as the querier sees it: workers, partitions with owner and offsets, what is stored by day."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import orjson

from pipeline.query.drops import UNREACHED, Get
from pipeline.store.manifest import ChunkEntry

DAY_NS = 86_400 * 10**9
DAYS = 14
ALL = "10000"  # rows of a worker's table: it has no more partitions than Kafka bears
FUTURE_NS = DAY_NS  # clocks of senders may be ahead


class Chunks(Protocol):
    """The catalog, as far as it is needed here. May block."""

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """Chunks with spans in the range."""


class Workers(NamedTuple):
    """What workers say: one row each, with whether it answers and what it lacks; of each partition its owner's row."""

    rows: list[dict[str, Any]]
    told: dict[int, Any]


async def workers(get: Get, urls: Iterable[str], headers: Mapping[str, str]) -> Workers:
    """Ask them all at once. Who does not answer in the time that `get` gives it has reached: false."""
    told: dict[int, Any] = {}

    async def ask(url: str) -> dict[str, Any]:
        try:
            pages = get(f"{url}/ready", {}, {}), get(f"{url}/tables/partitions", {"here": "1", "limit": ALL}, headers)
            (status, said, _), (_, table, _) = await asyncio.gather(*pages)
            told.update({int(partition): row for partition, row in orjson.loads(table)["rows"].items()})
        except UNREACHED:
            return {"url": url, "reached": False, "lacks": ""}
        return {"url": url, "reached": True, "lacks": "" if status == 200 else said.decode(errors="replace").strip()}

    return Workers(list(await asyncio.gather(*map(ask, sorted(set(urls))))), told)


def partitions(
    ends: Mapping[int, tuple[int, int]],
    horizons: Mapping[int, int],
    owners: Mapping[int, str],
    told: Mapping[int, Any],
) -> list[dict[str, Any]]:
    """One row a partition. waiting: records that are not yet in a chunk, those that Kafka has deleted left out.

    told: what its worker says of it; None where it does not answer.
    """
    return [
        {
            "partition": partition,
            "owner": owners.get(partition, ""),
            "stored": horizons.get(partition, 0),
            "end": end,
            "waiting": max(0, end - max(low, horizons.get(partition, 0))),
            "told": told.get(partition),
        }
        for partition, (low, end) in sorted(ends.items())
    ]


def stored(chunks: Chunks, tenants: Sequence[str], now_ns: int) -> list[dict[str, Any]]:
    """Chunks, spans and bytes of the last days, by the UTC day of a chunk's newest span; newest day first."""
    since_ns = max(0, now_ns - DAYS * DAY_NS)
    entries = (entry for tenant in tenants for entry in chunks.chunks_for(tenant, since_ns, now_ns + FUTURE_NS))
    return _by_day(entry for entry in entries if entry.start_max_unix_ns >= since_ns)


def _by_day(entries: Iterable[ChunkEntry]) -> list[dict[str, Any]]:
    days: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = datetime.fromtimestamp(entry.start_max_unix_ns // 10**9, UTC).strftime("%Y-%m-%d")
        day = days.setdefault(name, {"day": name, "chunks": 0, "spans": 0, "bytes": 0})
        day["chunks"] += 1
        day["spans"] += entry.spans
        day["bytes"] += entry.bytes
    return [days[name] for name in sorted(days, reverse=True)]
