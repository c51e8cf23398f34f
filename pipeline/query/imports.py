"""What a querier does without."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

PANDAS = "pandas"


class _Refused(MetaPathFinder):
    """Finds no pandas."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raises ModuleNotFoundError for it; for all else, asks the others."""
        if fullname == PANDAS:
            raise ModuleNotFoundError(f"a querier does without {PANDAS}", name=PANDAS)


def do_without_pandas() -> None:
    """Where it is installed, the engine loads it with the first value that is bound, to know its kinds of null: 2 s of
    CPU and 60 MB, for nothing that a querier has. For processes of queriers, and workers of theirs, alone.
    """
    if PANDAS not in sys.modules:
        sys.meta_path.insert(0, _Refused())
