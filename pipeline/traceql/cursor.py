"""Where a parser stands in a query's text, and how deep; and where each node of its tree came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pipeline.traceql.tokens import Token, checked_text, syntax_error, tokens, unexpected
from topics.errors import BadQuestionError

# Python allows 1,000 frames: the parser needs five a bracket, and who walks a tree may need four a node
BRACKETS_MAX = 100
HEIGHT_MAX = 200
Node = TypeVar("Node")


class Places:
    """Node -> offset of its first character, and its height. By identity: equal nodes stand in several places."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, int, int]] = {}  # holds the node: an identity is only good while it lives

    def add(self, node: Any, at: int) -> int:
        """Remember a node whose children are known. Returns its height."""
        height = 1 + max((self._height(child) for child in _children(node)), default=0)
        self._known[id(node)] = (node, at, height)
        return height

    def at(self, node: Any) -> int | None:
        """The offset of a node's first character."""
        known = self._known.get(id(node))
        return known[1] if known else None

    def _height(self, node: Any) -> int:
        known = self._known.get(id(node))
        return known[2] if known else 1


def _children(node: Any) -> Iterator[Any]:
    for field in fields(node):
        value = getattr(node, field.name)
        yield from value if isinstance(value, tuple) else (value,) if is_dataclass(value) else ()


class Cursor:
    """One token ahead; nothing is read twice."""

    def __init__(self, text: str) -> None:
        """Raises BadQuestionError where the first token is none, or the text is too long."""
        self.text = checked_text(text)
        self.places = Places()
        self._tokens = tokens(self.text)
        self._depth = 0
        self.token: Token = next(self._tokens)

    def take(self) -> Token:
        """The token, left behind."""
        taken = self.token
        self.token = next(self._tokens)
        return taken

    def stands(self, *texts: str) -> bool:
        """Whether the token is one of these operators or words."""
        return self.token.kind in ("operator", "word") and self.token.text in texts

    def accept(self, text: str) -> bool:
        """Leave this operator or word behind, if it stands here."""
        if not self.stands(text):
            return False
        self.take()
        return True

    def expect(self, text: str, *others: str) -> Token:
        """Leave this operator or word behind. others: what could have stood here too."""
        if not self.stands(text):
            raise self.unexpected(*others, text)
        return self.take()

    def unexpected(self, *expecting: str, suggestion: str | None = None) -> BadQuestionError:
        """The error about the token."""
        return unexpected(self.text, self.token, expecting, suggestion)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """For the time of one more expression within another: in brackets, behind a prefix or to the right."""
        self._depth += 1
        if self._depth > BRACKETS_MAX:
            raise self._too_deep(BRACKETS_MAX, self.token.at)
        yield
        self._depth -= 1

    def made(self, node: Node, at: int) -> Node:
        """The node, remembered."""
        if self.places.add(node, at) > HEIGHT_MAX:
            raise self._too_deep(HEIGHT_MAX, at)
        return node

    def _too_deep(self, most: int, at: int) -> BadQuestionError:
        return syntax_error(self.text, at, f"nested more than {most} deep")
