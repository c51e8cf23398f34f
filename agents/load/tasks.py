"""Task groups whose error is the error, not a group of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from topics.errors import SpanstreamError


@contextmanager
def first_error() -> Iterator[None]:
    """Around a task group: of the errors that ended it, the first one of ours is raised by itself."""
    try:
        yield
    except ExceptionGroup as group:
        ours = group.subgroup(SpanstreamError)
        if ours is None:
            raise
        first: BaseException = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group
