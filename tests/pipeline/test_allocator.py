"""What the C allocator keeps and gives back."""

from __future__ import annotations

import platform

from pipeline.allocator import keep_freed_memory


def test_glibc_is_told_to_keep_freed_memory() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
