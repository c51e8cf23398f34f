"""Durations as TraceQL writes them: `1h30m` as Prometheus does, `1.5s` as Go does."""

from __future__ import annotations

import re

INT64_MAX = 2**63 - 1
UNIT_CHARACTERS = "nsuµμmhdwy"
_TEXT_MAX = 64  # longer ones are beyond any duration; bounds the integers below
# Those of Go, and the longer ones that Prometheus has besides
UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
LONG_UNITS_NS = UNITS_NS | {days: count * 24 * UNITS_NS["h"] for days, count in (("d", 1), ("w", 7), ("y", 365))}
_PROMETHEUS_UNITS = ("y", "w", "d", "h", "m", "s", "ms")
_PROMETHEUS = re.compile("".join(rf"(?:([0-9]+){unit})?" for unit in _PROMETHEUS_UNITS))
_GO_PART = r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)"
_GO = re.compile(f"(?:{_GO_PART})+")


def nanoseconds(text: str) -> int | None:
    """A duration without sign. None where the text is none, or is too long for 64 bits."""
    if len(text) > _TEXT_MAX:
        return None
    if (found := _PROMETHEUS.fullmatch(text)) is not None and text:
        numbers = zip(found.groups(), _PROMETHEUS_UNITS, strict=True)
        total = sum(int(number or 0) * LONG_UNITS_NS[unit] for number, unit in numbers)
    elif _GO.fullmatch(text) is not None:
        parts = [part.groups() for part in re.finditer(_GO_PART, text)]
        if not all(whole or fraction for whole, fraction, _ in parts):
            return None
        total = sum(_go_part(whole, fraction or "", UNITS_NS[unit]) for whole, fraction, unit in parts)
    else:
        return None
    return total if total <= INT64_MAX else None


def _go_part(whole: str, fraction: str, unit_ns: int) -> int:
    """Whole nanoseconds: what is below one is cut off."""
    return int(whole or 0) * unit_ns + int(fraction or 0) * unit_ns // 10 ** len(fraction)


def duration_text(ns: int) -> str:
    """As short as it is readable, and exact: `250ms`, `1.5s`, `2h1m`."""
    if ns < 0:
        return f"-{duration_text(-ns)}"
    if ns < UNITS_NS["s"]:
        unit = "ms" if ns >= UNITS_NS["ms"] else "us" if ns >= UNITS_NS["us"] else "ns"
        return f"{_decimal(ns, UNITS_NS[unit])}{unit}" if ns else "0s"
    hours, rest = divmod(ns, UNITS_NS["h"])
    minutes, rest = divmod(rest, UNITS_NS["m"])
    parts = ((str(hours), "h"), (str(minutes), "m"), (_decimal(rest, UNITS_NS["s"]), "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number != "0")


def _decimal(ns: int, unit_ns: int) -> str:
    whole, rest = divmod(ns, unit_ns)
    digits = f"{rest:0{len(str(unit_ns)) - 1}}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
