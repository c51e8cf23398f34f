"""Parses field expressions, what stands in braces, and single fields and numbers. A Pratt parser: levels decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeGuard

from pipeline.traceql.cursor import Cursor
from pipeline.traceql.tokens import INSTEAD, Token, nearest, shown, syntax_error
from pipeline.traceql.tree import (
    BARE_INTRINSICS,
    COMPARISONS,
    KINDS,
    SET_OPERATORS,
    STATUSES,
    Attribute,
    Binary,
    Field,
    Filter,
    Intrinsic,
    Static,
    Unary,
)
from topics.errors import BadQuestionError

# A higher level binds tighter; all but `^` from left to right
LEVELS = {
    **dict.fromkeys(SET_OPERATORS, 2),
    **dict.fromkeys(COMPARISONS, 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 6),
    "^": 7,
}
PREFIX_LEVELS = {"-": 4, "!": 5}
WORDS = {
    "true": Static("bool", True),
    "false": Static("bool", False),
    "nil": Static("nil", None),
    "minInt": Static("int", -(2**63)),
    "maxInt": Static("int", 2**63 - 1),
    **{word: Static("status", word) for word in STATUSES},
    **{word: Static("kind", word) for word in KINDS},
}
FIELD = ("attribute", "intrinsic")
OPERAND = (*FIELD, "literal", "!", "-", "(")
NUMERIC = ("int", "float", "duration")


def above_for_right(operator: str, level: int) -> int:
    """The level above which the right operand of a binary operator reaches."""
    return level - 1 if operator == "^" else level


def negated(number: Static) -> Static:
    """The number with the other sign. -minInt is a float: 64 bits do not hold it."""
    assert isinstance(number.value, int | float)
    if number.type == "int" and number.value == -(2**63):
        return Static("float", float(-number.value))
    return Static(number.type, -number.value)


def is_number(node: object) -> TypeGuard[Static]:
    """Whether it is a number literal, durations included."""
    return isinstance(node, Static) and node.type in NUMERIC


class FieldParser(Cursor):
    """The half of the parser that is about one span."""

    def braces(self) -> Filter:
        """`{ expression }` or `{}`."""
        at = self.expect("{").at
        condition = Static("bool", True) if self.stands("}") else self.field()
        self.expect("}", "operator")
        return self.made(Filter(condition), at)

    def field(self, above: int = 0) -> Field:
        """An expression of operators that bind tighter than `above`."""
        at = self.token.at
        with self.deeper():
            left = self._operand()
            while self.token.kind == "operator" and (level := LEVELS.get(self.token.text, 0)) > above:
                operator = self.take().text
                right = self.field(above_for_right(operator, level))
                left = self.made(Binary(operator, left, right), at)
        return left

    def name(self) -> Attribute | Intrinsic:
        """An attribute or intrinsic alone."""
        token = self.token
        if token.kind == "word" and token.text in BARE_INTRINSICS:
            self.take()
            return self.made(Intrinsic(BARE_INTRINSICS[token.text]), token.at)
        if token.kind == "word" and token.text not in WORDS:
            raise self._unknown(token, BARE_INTRINSICS)
        if isinstance(token.value, Attribute | Intrinsic):
            self.take()
            return self.made(token.value, token.at)
        raise self.unexpected(*FIELD)

    def names(self) -> tuple[Attribute | Intrinsic, ...]:
        """`a, b)`: the opening bracket is behind."""
        found = [self.name()]
        while self.accept(","):
            found.append(self.name())
        self.expect(")", ",")
        return tuple(found)

    def literal(self, *expecting: str) -> Static:
        """A literal, a number with its sign."""
        sign = self.take() if self.stands("-") else None
        token = self.token
        value = WORDS.get(token.text) if token.kind == "word" else token.value
        if not isinstance(value, Static) or (sign is not None and not is_number(value)):
            raise self.unexpected(*(expecting or ("literal",)))
        self.take()
        # a copy: places are known by identity, and the words' values are shared
        return self.made(negated(value) if sign else replace(value), sign.at if sign else token.at)

    def number(self) -> Static:
        """A number, with its sign or without; durations too."""
        token = self.token
        value = self.literal("number")
        if not is_number(value):
            raise syntax_error(self.text, token.at, f"unexpected {token.text}, expecting number")
        return value

    def integer(self) -> int:
        """An integer without sign."""
        value = self.token.value
        if not isinstance(value, Static) or value.type != "int":
            raise self.unexpected("integer")
        self.take()
        assert isinstance(value.value, int)
        return value.value

    def _operand(self) -> Field:
        token = self.token
        if self.accept("("):
            inner = self.field()
            self.expect(")", "operator")
            return inner
        if self.stands("-", "!"):
            return self._prefixed()
        if token.kind == "word" and token.text not in BARE_INTRINSICS:
            if token.text not in WORDS:
                raise self._unknown(token, [*BARE_INTRINSICS, *WORDS])
            return self.literal()
        if token.kind == "literal":
            return self.literal()
        if token.kind in ("word", "field"):
            return self.name()
        raise self.unexpected(*OPERAND)

    def _prefixed(self) -> Field:
        token = self.take()
        operand = self.field(PREFIX_LEVELS[token.text])
        if token.text == "-" and is_number(operand):
            return self.made(negated(operand), token.at)
        return self.made(Unary(token.text, operand), token.at)

    def _unknown(self, token: Token, known: Iterable[str]) -> BadQuestionError:
        if token.text in INSTEAD:
            return self.unexpected(*OPERAND)
        suggestion = nearest(token.text, known) or f".{shown(token.text)}"
        return syntax_error(self.text, token.at, f"unknown identifier: {shown(token.text)}", suggestion)
