"""Who is whose parent in a trace. Every span hangs in exactly one tree, whatever was sent."""

from __future__ import annotations

from collections.abc import Iterator

from tests.pipeline.traceql.reference.model import Span, Trace

NO_PARENT = (b"", b"\0" * 8)


def by_start(span: Span) -> tuple[int, bytes, str]:
    """The order of siblings, of roots, and of spans that share an ID: start, then ID, then kind."""
    return span.start_ns, span.span_id, span.kind


class Family:
    """The trees of one trace.

    - A span without a parent ID is a root. So is one whose parent was not received (15.4).
    - Of several spans with the parent's ID the kinds decide (7): a SERVER span's parent is the CLIENT one, any other
      span's parent is the SERVER one. Where that says nothing, it is the earliest. A span is never its own parent.
    - In a ring of spans the earliest is the root: rings are no trees, and every span is in a tree.
    """

    def __init__(self, trace: Trace) -> None:
        self.spans = list(trace)
        self._parents = {span: self._named_parent(span) for span in self.spans}
        self._cut_rings()
        self._left: dict[Span, int] = {}
        self._right: dict[Span, int] = {}
        self._number()

    def _named_parent(self, span: Span) -> Span | None:
        if span.parent_id in NO_PARENT:
            return None
        found = sorted((one for one in self.spans if one.span_id == span.parent_id and one is not span), key=by_start)
        wanted = "client" if span.kind == "server" else "server"
        fitting = [one for one in found if one.kind == wanted]
        return next(iter(fitting or found), None)

    def _cut_rings(self) -> None:
        for span in self.spans:
            seen: list[Span] = []
            at: Span | None = span
            while at is not None and at not in seen:
                seen.append(at)
                at = self._parents[at]
            if at is not None:
                ring = seen[seen.index(at) :]
                self._parents[min(ring, key=by_start)] = None

    def _number(self) -> None:
        """Nested sets: a span's numbers enclose those of all below it. Only their order means something."""
        number = 0
        # None: everything below the span before it has been seen
        path: list[Span] = []
        todo: list[Span | None] = list(reversed(self.roots()))
        while todo:
            span = todo.pop()
            number += 1
            if span is None:
                self._right[path.pop()] = number
            else:
                self._left[span] = number
                path.append(span)
                todo += [None, *reversed(self.children(span))]

    def parent(self, span: Span) -> Span | None:
        return self._parents[span]

    def children(self, span: Span) -> list[Span]:
        return sorted((one for one in self.spans if self._parents[one] is span), key=by_start)

    def roots(self) -> list[Span]:
        return sorted((one for one in self.spans if self._parents[one] is None), key=by_start)

    def ancestors(self, span: Span) -> Iterator[Span]:
        """Parent, grandparent and so on up to the root."""
        above = self.parent(span)
        while above is not None:
            yield above
            above = self.parent(above)

    def are_siblings(self, one: Span, other: Span) -> bool:
        """Roots are siblings of each other (7); by 15.4 those whose parent was not received are roots like others."""
        return one is not other and self.parent(one) is self.parent(other)

    def nested_set(self, span: Span) -> tuple[int, int, int]:
        """Left, right, and the parent's left: -1 in a root."""
        above = self.parent(span)
        return self._left[span], self._right[span], -1 if above is None else self._left[above]

    @property
    def start_ns(self) -> int:
        return min(span.start_ns for span in self.spans)

    @property
    def end_ns(self) -> int:
        return max(span.end_ns for span in self.spans)

    def named_root(self) -> Span | None:
        """The span that names the trace: of those without a parent ID the earliest by (start, ID) (3.2).

        One whose parent was not received names nothing: another one will.
        """
        return min((span for span in self.spans if span.parent_id in NO_PARENT), key=by_start, default=None)
