"""HTML for notebooks: tables that carry their own style and no script. All text is a stranger's and is escaped."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

CELL_TEXT_MAX = 200
LINE_WIDTH, LINE_HEIGHT = 160, 24
NUMBERS = "text-align:right;font-variant-numeric:tabular-nums"
UNITS = (("s", 10**9), ("ms", 10**6), ("us", 10**3))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> str:
    """A table of cells that are HTML already, and lines below it."""
    head = "".join(f'<th style="text-align:left">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(_td(cell) for cell in row)}</tr>" for row in rows)
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes if note)
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"


def _td(content: str) -> str:
    return f'<td style="text-align:left;white-space:nowrap">{content}</td>'


def text(value: str) -> str:
    """A text, cut where it is long."""
    return escape(value if len(value) <= CELL_TEXT_MAX else value[:CELL_TEXT_MAX] + "…")


def code(value: str) -> str:
    """An ID."""
    return f"<code>{escape(value)}</code>"


def number(value: str, *, bad: bool = False) -> str:
    """A number, at the right; bad: of errors."""
    return f'<div style="{NUMBERS}{";color:#c62828" if bad else ""}">{escape(value)}</div>'


def cell(value: Any) -> str:
    """A value of any type."""
    if value is None:
        return "<i>null</i>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(str(value))
    return text(value.hex() if isinstance(value, bytes) else str(value))


def service(name: str) -> str:
    """A service in its colour."""
    return f'<b style="color:{colour(name)}">{text(name)}</b>'


def colour(name: str) -> str:
    """Always the same of a name; readable on white and on black."""
    return f"hsl({zlib.crc32(name.encode('utf-8', 'replace')) % 360},55%,48%)"


def more(count: int) -> str:
    """What is not shown."""
    return f"{count:,} more" if count > 0 else ""


def line(times: Sequence[int], values: Sequence[float]) -> str:
    """Points as a small line."""
    if len(values) < 2 or len(times) != len(values):
        return ""
    low, high = min(0.0, *values), max(0.0, *values)
    span, height = max(1, times[-1] - times[0]), (high - low) or 1.0
    points = " ".join(
        f"{(at - times[0]) / span * LINE_WIDTH:.1f},{LINE_HEIGHT - (value - low) / height * LINE_HEIGHT:.1f}"
        for at, value in zip(times, values, strict=True)
    )
    return (
        f'<svg width="{LINE_WIDTH}" height="{LINE_HEIGHT}" style="overflow:visible">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def bar(start: float, width: float, name: str) -> str:
    """A part of a whole from 0 to 1, as a bar."""
    return (
        f'<div style="width:240px"><div style="margin-left:{start * 240:.1f}px;width:{max(2.0, width * 240):.1f}px;'
        f'height:10px;background:{colour(name)}"></div></div>'
    )


def duration(nanoseconds: int) -> str:
    """With a unit that suits it."""
    for unit, size in UNITS:
        if abs(nanoseconds) >= size:
            return f"{nanoseconds / size:,.4g} {unit}"
    return f"{nanoseconds} ns"


def when(unix_ns: int) -> str:
    """UTC, to the millisecond; what no calendar has is shown as a number."""
    try:
        return datetime.fromtimestamp(unix_ns // 10**6 / 1e3, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return f"{unix_ns} ns"
