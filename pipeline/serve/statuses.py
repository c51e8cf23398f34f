"""Which HTTP status an error of ours is; gRPC's and MCP's follow from it."""

from __future__ import annotations

from topics.errors import (
    BadQuestionError,
    CallerGoneError,
    ForbiddenError,
    KafkaUnavailableError,
    OverloadedError,
    QueryCancelledError,
    QueryTimeoutError,
    QueryTooLargeError,
    RateLimitedError,
    SpanstreamError,
    StoreUnavailableError,
    UnknownQueryError,
    UnknownTenantError,
)

STATUS: dict[type[SpanstreamError], int] = {
    BadQuestionError: 400,
    UnknownTenantError: 401,
    ForbiddenError: 403,
    UnknownQueryError: 404,
    QueryTooLargeError: 413,
    RateLimitedError: 429,
    CallerGoneError: 499,
    QueryCancelledError: 499,
    KafkaUnavailableError: 503,
    OverloadedError: 503,
    StoreUnavailableError: 503,
    QueryTimeoutError: 504,
}


def status_of(error: SpanstreamError) -> int:
    """That of its kind, or of what its kind is one of; 500 for what nobody has asked for."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
