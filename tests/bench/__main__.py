"""`make bench`: what a span costs and how soon it is found, on real Kafka and MinIO.

Fills the topic with the load that every limit was set with, then lets each process do its part alone where CPU is
measured. Results are checked before they count: everything sent is stored, every trace asked for is whole.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.compaction import compaction_rows
from tests.bench.executor import executor_rows
from tests.bench.page import large_trace_rows
from tests.bench.queries import QueryBench
from tests.bench.report import Report
from tests.bench.rows import Bench

SPANS = 2_000_000
UNSEALED_SPANS = 1_000_000
PROBES = 1_000
ASKED_ABOUT = 5_000_000
MERGED = 200_000
SPREAD = 1_000_000
GROUPS = ("cost", "fresh", "restart", "start", "events", "queries", "trace", "compaction", "executor")


def main() -> int:
    """Measure what is asked for; the exit code says whether all is within its limit."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--spans", type=int, default=SPANS, help=f"spans of the load ({SPANS:,})")
    options.add_argument("--unsealed", type=int, default=UNSEALED_SPANS, help="spans a killed worker had not stored")
    options.add_argument("--probes", type=int, default=PROBES, help="probes of each kind for how soon a span is found")
    options.add_argument("--asked-about", type=int, default=ASKED_ABOUT, help="spans that questions are asked about")
    options.add_argument("--spread", type=int, default=SPREAD, help="spans that a Dask cluster is asked about")
    options.add_argument("--json", type=Path, default=Path("build/bench.json"))
    options.add_argument("--only", default=",".join(GROUPS), help="groups, comma-separated")
    asked = options.parse_args()
    groups, report = set(asked.only.split(",")), Report()
    with tempfile.TemporaryDirectory(prefix="spanstream-bench-") as folder:
        if "start" in groups:
            report.measure("start", Bench.start)
        if "events" in groups:
            report.measure("size with events and links", Bench.events)
        with Bench(Path(folder)) as bench:
            parts: dict[str, Callable[[], None]] = {
                "cost": lambda: bench.cost(report, asked.spans),
                "fresh": lambda: bench.fresh(report, asked.probes),
                "restart": lambda: report.measure("restart", lambda: bench.restart(asked.unsealed)),
                "queries": lambda: QueryBench(bench, asked.asked_about).measure(report),
                "trace": lambda: large_trace_rows(report, bench),
                "compaction": lambda: compaction_rows(report, bench, MERGED),
                "executor": lambda: executor_rows(report, bench, asked.spread),
            }
            for name, part in parts.items():
                if name in groups:
                    report.group(name, part)
    return report.finish(asked.json)


if __name__ == "__main__":
    sys.exit(main())
