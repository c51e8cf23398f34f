"""CPU of the deduplication window: `python -m tests.bench.window_bench`."""

from __future__ import annotations

import time

import numpy as np

from pipeline.partition.window import KEY_DTYPE, Window


def measure(*, keys: int, batch: int) -> float:
    """us of CPU a key for look-up and insertion; keys are all different and every one is looked up once."""
    window, rng, spent_s = Window(window_s=10**6, keys_max=10**9), np.random.default_rng(1), 0.0
    for last in range(keys // batch):
        added = np.empty(batch, dtype=KEY_DTYPE)
        added["hi"], added["lo"] = rng.integers(0, 2**63, (2, batch), dtype=np.uint64)
        start_s = time.process_time()
        assert not window.holds(added).any()
        window.add(added, time_max_unix_ns=1, last=last, now_ns=0)
        spent_s += time.process_time() - start_s
    assert len(window) == keys // batch * batch
    return spent_s / keys * 1e6


if __name__ == "__main__":
    print(f"{measure(keys=1_000_000, batch=10_000):.2f} us a key in batches of 10,000")  # noqa: T201 - its output
    print(f"{measure(keys=99_900, batch=300):.2f} us a key in batches of 300")  # noqa: T201
