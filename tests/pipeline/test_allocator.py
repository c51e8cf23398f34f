"""What the C allocator keeps and gives back."""

from __future__ import annotations

import platform

import pytest

from pipeline import allocator
from pipeline.allocator import keep_freed_memory


def test_glibc_is_told_to_keep_freed_memory() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_free_memory_goes_back_only_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(allocator, "_glibc", lambda _: trimmed.append)
    held = allocator.resident_bytes()

    allocator.release_memory(above_bytes=10 * held)
    below = len(trimmed)
    allocator.release_memory(above_bytes=held // 10)

    assert (below, len(trimmed)) == (0, 1)
