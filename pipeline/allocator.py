"""The C allocator's settings, one function a kind of process, and the collector's. Elsewhere than on glibc the first
change nothing.

None of them loads pyarrow: a receiver has no use for it, and Arrow reads the name of its allocator when it is loaded.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # glibc's malloc.h
KEPT_BYTES = 64 << 20
KEPT_BLOCK_BYTES = 32 << 20  # glibc's greatest mmap threshold
RETURNED_BLOCK_BYTES, RETURNED_BYTES = 4 << 20, 16 << 20
ARENAS_MAX = 2


def started() -> None:
    """What stands after the start stands until the end: the collector need not walk it again."""
    gc.collect()
    gc.freeze()


def keep_freed_memory() -> bool:
    """For receivers: keep up to 64 MB of freed memory. Returns whether the C library is glibc.

    A request's buffers are larger than what glibc keeps by default, so each would come as fresh pages from the kernel:
    0.06 page faults a span, and with them 0.8 of 5.1 us of CPU a span. The highest memory stays the same, it is
    only not given back in quiet times.
    """
    return _set({M_MMAP_THRESHOLD: KEPT_BLOCK_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES})


def reuse_memory() -> None:
    """For workers: let Arrow use the C allocator, and let that keep freed memory for the next batch.

    By default each batch maps fresh pages and gives them back: the page faults cost 1 us of CPU a span. Few arenas,
    since one a thread keeps that many copies of the largest batch.
    """
    found = _set(
        {
            M_ARENA_MAX: ARENAS_MAX,
            M_MMAP_THRESHOLD: KEPT_BLOCK_BYTES,
            M_TRIM_THRESHOLD: KEPT_BYTES,
            M_TOP_PAD: KEPT_BYTES // 4,
        }
    )
    if found:
        import pyarrow as pa

        pa.set_memory_pool(pa.system_memory_pool())


def give_memory_back() -> None:
    """For queriers, before pyarrow is loaded: Arrow on the C allocator, which returns each freed large block at once,
    and what is free beyond 16 MB.

    By default both keep what one question needed for the next. Blocks below 4 MB are kept: returned each time, down to
    128 kB, they cost compare() over 5 million spans 1.2 million page faults and 1.6 of 4.4 s, for 150 MB less at most.
    """
    limits = {M_ARENA_MAX: ARENAS_MAX, M_MMAP_THRESHOLD: RETURNED_BLOCK_BYTES, M_TRIM_THRESHOLD: RETURNED_BYTES}
    if _set(limits):
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def release_memory(*, above_bytes: int) -> None:
    """Give free memory back where the process holds more than `above_bytes`, holes between live buffers included.

    Some 10 ms, and 1 us of CPU a span for the pages that the next batch takes anew; to be called after tens of
    megabytes of work, off an event loop.
    """
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None and resident_bytes() > above_bytes:
        malloc_trim(0)


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _set(limits: dict[int, int]) -> bool:
    mallopt = _glibc("mallopt")
    return mallopt is not None and all(mallopt(name, value) for name, value in limits.items())


def _glibc(function: str) -> Any:
    """A function of the C library; None where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), function, None)
