"""Memory that is used again at once: the C allocator's settings for processes that work in large batches."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pyarrow as pa

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # glibc's malloc.h
KEEP_BYTES = 64 << 20
LARGE_BYTES = 32 << 20  # glibc's greatest mmap threshold
ARENAS_MAX = 2


def reuse_memory() -> None:
    """Let Arrow use the C allocator, and let that keep freed memory for the next batch instead of giving it back.

    By default each batch maps fresh pages and gives them back: the page faults cost 1 us of CPU a span. Few arenas,
    since one a thread keeps that many copies of the largest batch. Without glibc nothing changes.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return
    mallopt(M_ARENA_MAX, ARENAS_MAX)
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    mallopt(M_TOP_PAD, KEEP_BYTES // 4)
    pa.set_memory_pool(pa.system_memory_pool())


def release_memory() -> None:
    """Give free memory back, holes between live buffers included: without it they come to more than what is live.

    Some 10 ms; to be called after tens of megabytes of work, off an event loop.
    """
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _glibc(function: str) -> Any:
    """A function of the C library; None where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), function, None)
