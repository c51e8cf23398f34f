"""A query's text as tokens, one at a time: an error is about the first place that is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.traceql.durations import INT64_MAX, UNIT_CHARACTERS, nanoseconds
from pipeline.traceql.names import PREFIXES, attribute_at
from pipeline.traceql.tree import INTRINSIC_TYPES, Attribute, Intrinsic, Static
from topics.errors import BadQuestionError

INVALID = "invalid TraceQL query: "
TEXT_BYTES_MAX = 128 << 10
SHOWN_MAX = 40
# Longest first. `==` is none of the language's: it is here to be named in an error
OPERATORS = (
    *("!>>", "!<<", "&>>", "&<<"),
    *("&&", "||", "!=", "<=", ">=", "=~", "!~", "==", ">>", "<<", "!>", "!<", "&>", "&<", "&~"),
    *"=<>+-*/%^!|,(){}~",
)
INSTEAD = {"==": "=", "and": "&&", "or": "||", "not": "!", "null": "nil", "none": "nil", "in": "=~"}
_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_DURATION = re.compile(rf"[0-9.]+[{UNIT_CHARACTERS}][0-9.{UNIT_CHARACTERS}]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCOPED = re.compile(rf"{_WORD.pattern}:(?:{_WORD.pattern})?")
_RAW_STRING = re.compile(r"`([^`]*)`")
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))|[^\\]+", re.DOTALL
)
_ESCAPED = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}


@dataclass(frozen=True, slots=True)
class Token:
    """kind: operator, word, field (value: Attribute or scoped Intrinsic), literal (value: Static), end."""

    kind: str
    text: str
    at: int
    value: Static | Attribute | Intrinsic | None = None


def tokens(text: str) -> Iterator[Token]:
    """All tokens, then without end one of kind `end`. Raises BadQuestionError where none can be read."""
    at = _space(text, 0)
    while at < len(text):
        token, end = _token(text, at)
        yield token
        at = _space(text, end)
    while True:
        yield Token("end", "end of query", len(text))


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    end = found.end() if found else at
    if text.startswith("/*", end):
        raise syntax_error(text, end, "a comment does not end")
    return end


def _token(text: str, at: int) -> tuple[Token, int]:
    first = text[at]
    if _NUMBER.match(text, at) is not None:
        return _number(text, at)
    if first in '"`':
        return _string(text, at)
    if text.startswith(PREFIXES, at):
        return _attribute(text, at)
    if (scoped := _SCOPED.match(text, at)) is not None:
        return _intrinsic(text, at, scoped[0]), scoped.end()
    if (word := _WORD.match(text, at)) is not None:
        if text.startswith(".", word.end()):
            raise _no_scope(text, at, word[0])
        return Token("word", word[0], at), word.end()
    for operator in OPERATORS:
        if text.startswith(operator, at):
            return Token("operator", operator, at), at + len(operator)
    if first == "'":
        raise syntax_error(text, at, "unexpected ', strings stand in double quotes or backticks", '"')
    raise syntax_error(text, at, f"unexpected character {first!r}")


def _number(text: str, at: int) -> tuple[Token, int]:
    if (found := _DURATION.match(text, at)) is not None:
        ns = nanoseconds(found[0])
        if ns is None:
            raise syntax_error(text, at, f"{shown(found[0])} is no duration, or is longer than 292 years")
        return Token("literal", found[0], at, Static("duration", ns)), found.end()
    found = _NUMBER.match(text, at)
    assert found is not None
    digits = found[0]
    if any(found.groups()):
        value = float(digits)
        if not math.isfinite(value):
            raise syntax_error(text, at, f"{shown(digits)} is too large for a float")
        return Token("literal", digits, at, Static("float", value)), found.end()
    if len(digits.lstrip("0")) > 19 or int(digits) > INT64_MAX:
        raise syntax_error(text, at, f"{shown(digits)} is too large for an integer of 64 bits")
    return Token("literal", digits, at, Static("int", int(digits))), found.end()


def _string(text: str, at: int) -> tuple[Token, int]:
    found = (_RAW_STRING if text[at] == "`" else _STRING).match(text, at)
    if found is None:
        raise syntax_error(text, at, "a string does not end")
    value = found[1] if text[at] == "`" else _unescaped(text, at, found[1])
    return Token("literal", found[0], at, Static("string", value)), found.end()


def _unescaped(text: str, at: int, inner: str) -> str:
    """Escapes may spell bytes, so bytes are joined; together they must be UTF-8."""
    joined = bytearray()
    for part in _ESCAPE.finditer(inner):
        short, byte, four, eight, octal, wrong = part.groups()
        code = int(four or eight or "0", 16)
        if wrong is not None or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF or int(octal or "0", 8) > 255:
            raise syntax_error(text, at + 1 + part.start(), f"{part[0]} is no escape of a string", "\\\\")
        if short:
            joined.append(_ESCAPED[short])
        elif byte or octal:
            joined.append(int(byte, 16) if byte else int(octal, 8))
        else:
            joined += (chr(code) if four or eight else part[0]).encode()
    try:
        return joined.decode()
    except UnicodeDecodeError:
        raise syntax_error(text, at, "a string's escapes are no UTF-8") from None


def _attribute(text: str, at: int) -> tuple[Token, int]:
    try:
        attribute, end = attribute_at(text, at)
    except BadQuestionError as exc:
        raise syntax_error(text, at, str(exc)) from None
    return Token("field", text[at:end], at, attribute), end


def _intrinsic(text: str, at: int, name: str) -> Token:
    if name in INTRINSIC_TYPES:
        return Token("field", name, at, Intrinsic(name))
    raise syntax_error(text, at, f"unknown intrinsic: {shown(name)}", nearest(name, INTRINSIC_TYPES))


def _no_scope(text: str, at: int, scope: str) -> BadQuestionError:
    near = nearest(scope, [prefix[:-1] for prefix in PREFIXES if prefix != "."])
    return syntax_error(text, at, f"unknown scope: {shown(scope)}.", f"{near}." if near else f".{shown(scope)}.")


# ---- errors


def checked_text(text: str) -> str:
    """The text itself. Raises BadQuestionError where it is too long, or no UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadQuestionError(f"{INVALID}it is no UTF-8") from None
    if size > TEXT_BYTES_MAX:
        raise BadQuestionError(f"{INVALID}it has {size} bytes, more than {TEXT_BYTES_MAX}")
    return text


def syntax_error(text: str, at: int, what: str, suggestion: str | None = None) -> BadQuestionError:
    """The error about a place: an offset into the text."""
    line, column = line_and_column(text, at)
    ending = f" (did you mean {suggestion}?)" if suggestion else ""
    return BadQuestionError(f"{INVALID}parse error at line {line}, col {column}: syntax error: {what}{ending}")


def unexpected(text: str, token: Token, expecting: tuple[str, ...], suggestion: str | None = None) -> BadQuestionError:
    """The error about a token in the wrong place. expecting: what could stand there, by name."""
    names = [*expecting[:-2], " or ".join(expecting[-2:])]
    if suggestion is None and not {"operator", "comparison", "literal"}.isdisjoint(expecting):
        suggestion = INSTEAD.get(token.text.lower())
    return syntax_error(text, token.at, f"unexpected {shown(token.text)}, expecting {', '.join(names)}", suggestion)


def line_and_column(text: str, at: int) -> tuple[int, int]:
    """Both from 1, in characters."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    words = list(known)
    if len(word) > SHOWN_MAX:
        return None
    same = [one for one in words if one.lower() == word.lower()]
    return next(iter(same or get_close_matches(word, words, n=1, cutoff=0.6)), None)


def shown(text: str) -> str:
    """A piece of a query in an error, cut where it is long."""
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
