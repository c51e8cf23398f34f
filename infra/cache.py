"""Where downloaded and built programs stand: one folder a user, shared by all clones, safe to delete."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/spanstream, else ~/.cache/spanstream. It may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "spanstream"


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`: a second process that fills the same part of the cache waits here.

    The kernel drops the lock when its holder dies.
    """
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
