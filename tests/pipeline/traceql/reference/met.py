"""What the reference was asked: how often each operator met each types of operands."""

from __future__ import annotations

from collections import Counter

Cell = tuple[str, ...]  # an operator or function, and the types of its operands
MET: Counter[Cell] = Counter()


def met(*cell: str) -> None:
    MET[cell] += 1
