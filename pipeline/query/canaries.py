"""What canaries say of themselves, read from their metrics: how many looks at known traces were right, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pipeline.query.drops import UNREACHED, Get

CHECKS, MISSING = "spanstream_canary_checks_total", "spanstream_canary_missing_total"
LAST, FRESH = "spanstream_canary_last_check_timestamp_seconds", "spanstream_canary_fresh_seconds"


async def all_canaries(get: Get, urls: Iterable[str]) -> list[dict[str, Any]]:
    """One a canary, in the order of the URLs. Who does not answer has reached: false and no numbers."""

    async def ask(url: str) -> dict[str, Any]:
        try:
            status, body, _ = await get(f"{url.rstrip('/')}/metrics", {}, {})
            return {"url": url, "reached": True} | read(body.decode()) if status == 200 else _silent(url)
        except UNREACHED:
            return _silent(url)

    return list(await asyncio.gather(*map(ask, urls)))


def _silent(url: str) -> dict[str, Any]:
    return {"url": url, "reached": False}


def read(text: str) -> dict[str, Any]:
    """The numbers of one canary, since its start. Times in Unix ms, 0: never. Raises ValueError, KeyError."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def by(name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for sample in samples:
            if sample.name == name:
                found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + sample.value
        return found

    def alone(name: str) -> float:
        return sum(sample.value for sample in samples if sample.name == name)

    checks, last = by(CHECKS, "result"), by(LAST, "right")
    looks = alone(f"{FRESH}_count")
    return {
        "checks": {result: int(count) for result, count in sorted(checks.items())},
        "missing": {stage: int(count) for stage, count in sorted(by(MISSING, "stage").items())},
        "lastRightUnixMs": int(last.get("true", 0) * 1000),
        "lastWrongUnixMs": int(last.get("false", 0) * 1000),
        "freshMs": round(alone(f"{FRESH}_sum") / looks * 1000, 1) if looks else None,
    }
