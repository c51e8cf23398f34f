"""Cutting a large request into small ones before anything parses it.

A parser's objects take up to 90 times the bytes on the wire (empty spans), so a request of 16 MB could take more than a
gigabyte. Its slices are parsed one after the other instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.spans.rewrite import (
    RESOURCE_LONG,
    add_marks,
    read_varint,
    shorten_envelope,
    shorten_span,
    value_end,
    varint,
)
from topics.errors import RequestTooLargeError

SLICE_BYTES = 512 << 10
SPANS_MAX = 500_000  # a span with IDs takes 30 bytes at least; walking these takes 0.3 s


class Slicer:
    """Slices of one request, each TracesData of about `SLICE_BYTES` of spans under copies of resource and scope.

    span_bytes_max: a longer span is cut at its longest values before anything parses it, or left out; `rejected` and
    `marked` tell what became of those, by reason and mark. A resource or scope above `SLICE_BYTES` is cut to that:
    who cuts the slice by trace cuts it further and marks its spans.
    """

    def __init__(self, payload: bytes, *, span_bytes_max: int, attribute_bytes_max: int) -> None:
        self._payload = payload
        self._span_bytes_max = span_bytes_max
        self._attribute_bytes_max = attribute_bytes_max
        self._spans_left = SPANS_MAX
        self.rejected: Counter[str] = Counter()
        self.marked: Counter[str] = Counter()

    def __iter__(self) -> Iterator[bytes]:
        """The slices in order. Raises MalformedRequestError where a length leads nowhere, RequestTooLargeError above
        500,000 spans."""
        for start, end in self._fields(0, len(self._payload), 0x0A):
            resource, scopes = self._parts(start, end)
            resource_short = shorten_envelope(resource, "ResourceSpans", SLICE_BYTES)
            for scope_start, scope_end in scopes:
                scope, spans = self._parts(scope_start, scope_end)
                scope_short = shorten_envelope(scope, "ScopeSpans", SLICE_BYTES)
                if resource_short is None or scope_short is None:
                    self.rejected[RESOURCE_LONG] += len(spans)
                    continue
                for some in self._portions(spans):
                    scope_spans = b"".join((scope_short[0], *some))
                    resource_spans = b"".join((resource_short[0], b"\x12", varint(len(scope_spans)), scope_spans))
                    yield b"".join((b"\x0a", varint(len(resource_spans)), resource_spans))

    def _fields(self, at: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
        data = self._payload
        while at < end:
            tag, at = read_varint(data, at, end)
            start, at = value_end(data, tag, at, end)
            if tag == wanted:
                yield start, at

    def _parts(self, at: int, end: int) -> tuple[bytes, list[tuple[int, int]]]:
        """What a ResourceSpans or ScopeSpans says of itself, and where the messages inside start and end."""
        data = self._payload
        inside: list[tuple[int, int]] = []
        around: list[bytes] = []
        while at < end:
            field_start = at
            tag, at = read_varint(data, at, end)
            start, at = value_end(data, tag, at, end)
            if tag == 0x12:
                inside.append((start, at))
                self._spans_left -= 1
                if self._spans_left < 0:
                    raise RequestTooLargeError(f"a request may hold {SPANS_MAX} spans and scopes")
            else:
                around.append(data[field_start:at])
        return b"".join(around), inside

    def _portions(self, spans: list[tuple[int, int]]) -> Iterator[list[bytes]]:
        some: list[bytes] = []
        size = 0
        for start, end in spans:
            span = self._payload[start:end]
            if len(span) > self._span_bytes_max:
                span, marks, reason = shorten_span(span, self._attribute_bytes_max, self._span_bytes_max)
                if reason is not None:
                    self.rejected[reason] += 1
                    continue
                span = add_marks(span, marks)
                self.marked.update(marks)
            some += (b"\x12", varint(len(span)), span)
            size += len(span)
            if size >= SLICE_BYTES:
                yield some
                some, size = [], 0
        if some:
            yield some
