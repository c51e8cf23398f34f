"""A trace of 100,000 spans, ten below each."""

from __future__ import annotations

import random
import time

from tests.browser.shop import BuiltTrace, send

SPANS = 100_000
CHILDREN = 10
AT_ONCE = 10_000  # spans a request


def send_large_trace(otlp_url: str) -> str:
    """Send it; gives its ID in hex. It has few names, as large traces do."""
    rng = random.Random(time.time_ns())
    start = time.time_ns() - 10**9
    trace_id = rng.randbytes(16)
    for first in range(0, SPANS, AT_ONCE):
        built = BuiltTrace(trace_id, rng)
        for number in range(first, first + AT_ONCE):
            parent = _id((number - 1) // CHILDREN) if number else b""
            built.add("batch", f"step {number % 7}", start + number * 1000, 50, parent)
            next(iter(built.spans.values()))[-1].span_id = _id(number)
        send(otlp_url, [built])
    return trace_id.hex()


def _id(number: int) -> bytes:
    return (number + 1).to_bytes(8, "big")
