"""What commands write: colours on a terminal only, JSON for scripts, errors on stderr."""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

WIDTH = 200


@functools.cache
def screen() -> Console:
    """stdout, for answers. Tables take the room they need where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


@functools.cache
def notes() -> Console:
    """stderr, for progress and what is no answer."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def say(line: str) -> None:
    """A line on stderr, as it is: brackets are no markup."""
    notes().print(Text(line))


def say_error(sentence: str) -> None:
    """An error on stderr, red on a terminal."""
    notes().print(Text(sentence, style="bold red"))


def write_json(value: Any) -> None:
    """One JSON document on stdout, indented."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
    sys.stdout.flush()
