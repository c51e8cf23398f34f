"""What a question may end in. Each error's text is the querier's sentence."""

from __future__ import annotations


class SpanstreamError(Exception):
    """The root of them. status: of the querier's answer; 0 where none came."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class BadQuestionError(SpanstreamError):
    """The query, a time, a name or an ID is wrong: the sentence says how to mend it."""


class NotAllowedError(SpanstreamError):
    """The token is missing, unknown or not for this, or the tenant is."""


class NotFoundError(SpanstreamError):
    """There is no span of that trace."""


class LimitError(SpanstreamError):
    """The question needs more time, memory, bytes or turns than the querier's settings allow."""


class UnavailableError(SpanstreamError):
    """No querier answers there, or it cannot answer now: the same question may be answered later."""


def error_of(status: int, sentence: str) -> SpanstreamError:
    """The error that an answer's status stands for."""
    kinds: dict[int, type[SpanstreamError]] = {
        400: BadQuestionError,
        401: NotAllowedError,
        403: NotAllowedError,
        404: NotFoundError,
        413: LimitError,
        422: BadQuestionError,
        429: LimitError,
        504: LimitError,
    }
    return kinds.get(status, UnavailableError)(sentence, status)
