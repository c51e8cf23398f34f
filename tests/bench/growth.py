"""`make bench-long`: what questions of the same size cost when four times as much is stored around them.

Spans of the last minutes stand in the store; each question is about a few of them. Then three times as many are stored,
older than what is asked about, and the same is asked again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from agents.load.blocks import Load
from tests.bench.queries import Asked, questions, times_of, url_of
from tests.bench.report import Report, Row
from tests.bench.rows import SEED, Bench, Figures, ask_all
from topics.settings import Settings

SPANS, TIMES = 5_000_000, 4
OLDER_S = 4 * 3600
STORED_S = 900.0  # longest wait for a load
PROCESSES, TRACES, WARM_UP = 5, 200, 20
BY_ID = "trace by ID"
COLD = ("attribute equality, 20 newest", "service and duration", "rate() by service", "tag values")
NAMES = (BY_ID, *COLD)
ROWS = tuple(Row(f"{name}: {TIMES} times as many spans", "times", 1.3) for name in NAMES)


def main() -> int:
    """Measure; the exit code says whether all is within its limit."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--spans", type=int, default=SPANS, help=f"spans at first ({SPANS:,})")
    options.add_argument("--json", type=Path, default=Path("build/bench-long.json"))
    asked, report = options.parse_args(), Report(ROWS)
    with tempfile.TemporaryDirectory(prefix="spanstream-bench-") as folder, Bench(Path(folder)) as bench:
        report.measure("cost growth", lambda: growth(bench, asked.spans))
    return report.finish(asked.json)


def growth(bench: Bench, spans: int) -> Figures:
    """How many times longer each question takes when `TIMES` times as many spans are stored."""
    settings = bench.settings("growth", seal_age_s=15.0, seal_spans=500_000)
    began_s = int(time.time())
    bench.fill(settings, spans, timeout_s=STORED_S)
    load = Load(spans, SEED)
    ids = [one.tobytes() for block in range(load.blocks) for one in load.trace_ids(block)[:2]][:TRACES]
    asked = [one for one in questions("", began_s - 60, int(time.time()) + 60) if one.name in COLD]
    before = _ask(bench, settings, asked, ids)
    for number in range(1, TIMES):
        bench.fill(settings, spans, "--age-s", str(OLDER_S * number), seed=SEED + number, timeout_s=STORED_S)
    after = _ask(bench, settings, asked, ids)
    return {f"{name}: {TIMES} times as many spans": after[name] / before[name] for name in NAMES}


def _ask(bench: Bench, settings: Settings, asked: list[Asked], ids: list[bytes]) -> Figures:
    """Milliseconds: of each question the median first answer of new processes, of traces by ID that of many traces."""
    found: dict[str, list[float]] = {one.name: [] for one in asked}
    with bench.process("worker", settings):
        for _ in range(PROCESSES):
            for one in asked:
                with bench.process("serve", settings) as querier:
                    found[one.name] += asyncio.run(times_of([querier.url + url_of(one)], one.right))
        with bench.process("serve", settings) as querier:
            asyncio.run(ask_all(querier.url, ids[:WARM_UP], warm_up=True))
            found[BY_ID] = asyncio.run(ask_all(querier.url, ids))
    return {name: median(times_ms) for name, times_ms in found.items()}


if __name__ == "__main__":
    sys.exit(main())
