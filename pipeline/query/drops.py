"""The drops of all receivers and workers, added up: each counts for itself, so each is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from pipeline.drops import PATH, Counts, added
from topics.spans_by_trace import TENANT_HEADER

Get = Callable[[str, Mapping[str, str], Mapping[str, str]], Awaitable[tuple[int, bytes, str]]]
UNREACHED = (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError)


async def all_drops(
    get: Get, sources: Iterable[tuple[str, str]], tenants: Sequence[str], *, everything: bool
) -> dict[str, Any]:
    """The numbers of these tenants over all sources, (kind, URL) each; who did not answer is named.

    everything: the caller may see what is of all tenants together. Others are not told where our processes are.
    """
    listed = sorted(set(sources))
    headers = {TENANT_HEADER: "|".join(tenants)}

    async def ask(url: str) -> dict[str, Any] | None:
        try:
            status, body, _ = await get(url + PATH, {}, headers)
            return _read(body) if status == 200 else None
        except UNREACHED:
            return None

    answers = await asyncio.gather(*(ask(url) for _, url in listed))
    total: dict[str, Counts] = {}
    forgotten = 0
    for answer in filter(None, answers):
        added(total, answer["tenants"])
        forgotten += answer["forgottenTenants"]
    reasons = [
        f"{kind} {url} does not tell its numbers" if everything else f"a {kind} does not tell its numbers"
        for (kind, url), answer in zip(listed, answers, strict=True)
        if answer is None
    ]
    if forgotten:
        reasons.append(f"numbers of {forgotten} tenants were forgotten: limits.counted_tenants_max")
    return {
        "tenants": total,
        "sources": [
            {"kind": kind, "url": url if everything else "", "reached": answer is not None}
            for (kind, url), answer in zip(listed, answers, strict=True)
        ],
        "complete": not reasons,
        "reasons": reasons,
    }


def _read(body: bytes) -> dict[str, Any]:
    """One process's numbers. Raises what UNREACHED names for anything else."""
    found = orjson.loads(body)
    tenants: dict[str, Counts] = {}
    for tenant, kinds in found["tenants"].items():
        for kind, reasons in kinds.items():
            tenants.setdefault(str(tenant), {})[str(kind)] = {str(reason): int(n) for reason, n in reasons.items()}
    return {"tenants": tenants, "forgottenTenants": int(found["forgottenTenants"])}
