"""Text of strangers made safe to show on a terminal or in a log: what would steer it is shown as U+FFFD."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# C0 but tab and newline, DEL, C1, line and paragraph separators, marks that turn the direction of text, lone surrogates
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """The text without what moves a cursor, changes a colour, sets a title, or shows text in another order."""
    return _STEERING.sub(REPLACEMENT, text)


def visible_values(_logger: Any, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """A log event whose texts are safe; for structlog."""
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}
