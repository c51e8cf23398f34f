"""`python -m tests.long`: the full forms of the tests under faults, on a Kafka and a MinIO of its own.

Prints every figure, writes build/test-long.json. Exit code 1 where one is above its bound or a scenario failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.stack import LocalStack
from tests.long import crashes, hostile_input, store_faults, storm, traceql_pairs
from tests.long.figures import Figure, write
from tests.pages import ROOT
from topics.settings import Settings, StackSettings, StoreSettings

OUTPUT = ROOT / "build" / "test-long.json"
Scenario = Callable[[Settings, Path], Iterator[Figure]]
SCENARIOS: dict[str, Scenario] = {
    "hostile": hostile_input.figures,
    "crashes": crashes.figures,
    "storm": storm.figures,
    "store": store_faults.figures,
    "traceql": traceql_pairs.figures,
}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.long")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS, "simulation"], help="these only")
    parser.add_argument("--seeds", type=int, default=5000, help="of the simulation")
    parser.add_argument("--processes", type=int, default=1, help="of the simulation")
    given = parser.parse_args()
    wanted = given.only or [*SCENARIOS, "simulation"]
    found: list[Figure] = []
    if any(name in SCENARIOS for name in wanted):
        with tempfile.TemporaryDirectory(prefix="spanstream-long-") as folder:
            found += on_real_parts(Path(folder), [name for name in SCENARIOS if name in wanted])
    if "simulation" in wanted:
        words = ["--seeds", str(given.seeds), "--processes", str(given.processes)]
        code = subprocess.run([sys.executable, "-m", "tests.simulation", *words], check=False).returncode
        found.append(Figure("simulation: seeds that broke a promise, or cells never met", code, "runs", 0))
    write(OUTPUT, found)
    print(*found, sep="\n")  # noqa: T201
    return int(not all(one.good for one in found))


def on_real_parts(folder: Path, names: list[str]) -> list[Figure]:
    """The scenarios one after the other, each with topics and buckets of its own."""
    stack = StackSettings(data_dir=folder / "stack", kafka_port=0, kafka_controller_port=0, store_port=0, store="minio")
    found: list[Figure] = []
    with LocalStack(Settings(stack=stack), lambda line: print(line, flush=True)) as running:  # noqa: T201
        for name in names:
            unique = f"{name.replace('_', '-')}-{uuid.uuid4().hex[:6]}"
            base = running.settings
            kafka = base.kafka.model_copy(update={"topic_prefix": f"{unique}-", "group": unique, "partitions": 4})
            store = StoreSettings(**base.store.model_dump() | {"buckets": (f"{unique}-a", f"{unique}-b")})
            own = base.model_copy(update={"kafka": kafka, "store": store})
            (folder / name).mkdir()
            began = time.monotonic()
            failed = 0
            try:
                for one in SCENARIOS[name](own, folder / name):
                    print(one, flush=True)  # noqa: T201
                    found.append(one)
            except Exception:  # said, counted; the other scenarios run
                traceback.print_exc()
                failed = 1
            found.append(Figure(f"{name}: failed", failed, "runs", 0))
            print(f"{name} took {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
            write(OUTPUT, found)
    return found


if __name__ == "__main__":
    sys.exit(main())
