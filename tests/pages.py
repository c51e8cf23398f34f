"""The project's pages and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASSIGNMENT = re.compile(r"[A-Z_]+=")


def pages() -> list[Path]:
    """README and everything under docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of every `spanstream` and `make` line in the page's shell blocks, without variables and comments."""
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words and Path(words[0]).name in ("spanstream", "make"):
                yield [Path(words[0]).name, *words[1:]]
