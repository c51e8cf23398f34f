"""Traces as the reference knows them: plain values, nothing encoded.

The reference answers TraceQL slowly and obviously, one trace and one span at a time; the engine is tested against it.
Numbers in brackets in this folder and in its tests, as (5.1), are sections of the description of the language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What an attribute may hold: a scalar, a list of one type of them, or something opaque (bytes, mixed or empty lists,
# maps), which is kept and shown and matches nothing.
Held = str | int | float | bool | bytes | list[Any] | dict[str, Any]
Attributes = Mapping[str, Held]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened while the span ran."""

    time_ns: int
    name: str = ""
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Another span that this one is about."""

    trace_id: bytes
    span_id: bytes
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """One span with its surroundings. Spans are told apart as objects: two with the same content are two spans.

    kind and status: words of tree.KINDS and tree.STATUSES. parent_id: empty in a root.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes = b""
    name: str = "op"
    kind: str = "internal"
    status: str = "unset"
    status_message: str = ""
    start_ns: int = 0
    end_ns: int = 0
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)
    scope_name: str = ""
    scope_version: str = ""
    scope_attributes: Attributes = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    trace_state: str = ""

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


Trace = list[Span]
