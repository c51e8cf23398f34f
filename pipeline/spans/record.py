"""What the decoder takes: a record's value with where it stood."""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """One record of the keyed topic: OTLP TracesData bytes of one tenant."""

    tenant: str
    offset: int
    value: bytes


class BadRecord(NamedTuple):
    """A record that is no OTLP: its place in the list handed in, and why."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls here
    reason: str
