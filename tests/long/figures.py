"""What a long test found, as rows of build/test-long.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One number and the most it may be."""

    name: str
    value: float
    unit: str
    at_most: float

    @property
    def good(self) -> bool:
        """Whether it is within its bound."""
        return self.value <= self.at_most

    def __str__(self) -> str:
        mark = "" if self.good else "   TOO MUCH"
        return f"{self.name:60} {self.value:>12,.6g} {self.unit:10} at most {self.at_most:,.6g}{mark}"


def write(path: Path, figures: list[Figure]) -> None:
    """The file, whole after each scenario, so that a run that is broken off leaves what it found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")
