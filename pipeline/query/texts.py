"""The small languages of the parameters: durations, tag lists, hexadecimal trace IDs."""

from __future__ import annotations

import re

from pipeline.traceql.durations import INT64_MAX, UNITS_NS
from topics.errors import BadQuestionError

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([a-zµμ]+)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}
_DURATION_CHARACTERS_MAX = 64
HEX = frozenset("0123456789abcdefABCDEF")


def duration_ns(text: str, *, units: dict[str, int] = UNITS_NS) -> int:
    """A duration as Go writes it (`1.5s`, `1h30m`, `100ms`) in ns, which fit 64 bits. Raises BadQuestionError.

    units: LONG_UNITS_NS for those that Prometheus knows besides (`2d`).
    """
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total, at = 0.0, 0
    exact = 0
    while at < len(body) <= _DURATION_CHARACTERS_MAX:
        part = _PART.match(body, at)
        if part is None or part[2] not in units:
            break
        whole, _, fraction = part[1].partition(".")
        exact += int(whole or 0) * units[part[2]]
        total += float(f"0.{fraction or 0}") * units[part[2]]
        at = part.end()
    found = exact + round(total)
    if not body or at < len(body) or found > INT64_MAX:
        raise BadQuestionError(f'time: invalid duration "{text[:_DURATION_CHARACTERS_MAX]}"')
    return sign * found


def trace_id_of(text: str) -> bytes:
    """The 16 bytes of a trace ID in hexadecimal; a shorter one is padded with zeros. Raises BadQuestionError."""
    for position, character in enumerate(text, 1):
        if character not in HEX:
            raise BadQuestionError(
                f"trace IDs can only contain hex characters: invalid character '{character}' at position {position}"
            )
    if len(text) > 32:
        raise BadQuestionError("trace IDs can't be larger than 128 bits")
    if not text:
        raise BadQuestionError("a trace ID is missing")
    return bytes.fromhex(text.rjust(32, "0"))


def tags_of(text: str) -> dict[str, str]:
    """The tags of a logfmt list: `k=v k2="a b"`; a key alone has the empty value. Raises BadQuestionError."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at] <= " ":
            at += 1
            continue
        start = at
        while at < len(text) and text[at] > " " and text[at] not in '="':
            at += 1
        key = text[start:at]
        if not key or (at < len(text) and text[at] == '"'):
            raise BadQuestionError(f"invalid tags: unexpected '{text[at]}' at pos {at + 1}")
        value = ""
        if at < len(text) and text[at] == "=":
            value, at = _value(text, at + 1)
        if key in found:
            raise BadQuestionError(f"invalid tags: tag {key} has been set twice")
        found[key] = value
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that starts at `at`, and where the next pair may start."""
    if at < len(text) and text[at] == '"':
        return _quoted(text, at)
    start = at
    while at < len(text) and text[at] > " ":
        if text[at] in '="':
            raise BadQuestionError(f"invalid tags: unexpected '{text[at]}' at pos {at + 1}")
        at += 1
    return text[start:at], at


def _quoted(text: str, start: int) -> tuple[str, int]:
    at = start + 1
    parts: list[str] = []
    while at < len(text):
        character = text[at]
        if character == '"':
            if at + 1 < len(text) and text[at + 1] > " ":
                raise BadQuestionError(f"invalid tags: unexpected '{text[at + 1]}' after quoted value at pos {at + 2}")
            return "".join(parts), at + 1
        if character != "\\":
            parts.append(character)
            at += 1
            continue
        escape = text[at + 1 : at + 2]
        if escape == "u" and len(digits := text[at + 2 : at + 6]) == 4 and HEX.issuperset(digits):
            parts.append(chr(int(digits, 16)))
            at += 6
        elif escape and escape in _ESCAPED:
            parts.append(_ESCAPED[escape])
            at += 2
        else:
            raise BadQuestionError(f"invalid tags: invalid quoted value at pos {at + 1}")
    raise BadQuestionError(f"invalid tags: unterminated quoted value at pos {start + 1}")
