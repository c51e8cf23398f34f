"""Edits: numbered changes to what a partition's manifests name. Manifests and edits, folded in order, say what counts.

Of several edits prepared on the same state one is taken, since a number is taken once; so what a taken edit removes was
there, and is there no more for whoever comes next. A checkpoint is the state after some edit, so that those before it
need not be read, nor kept. An edit below a checkpoint counts for nothing, whenever it comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import orjson

from pipeline.store.manifest import (
    ChunkEntry,
    Manifest,
    chunk_from_values,
    chunk_values,
    manifest_prefix,
    parse_chunk_object,
)
from topics.errors import FormatVersionError, MalformedRecordError

FORMAT = 1
EDIT_NAME = re.compile(r"manifests/[^/]+/\d+/edits/(?P<sequence>\d{20})\.json")
CHECKPOINT_NAME = re.compile(r"manifests/[^/]+/\d+/checkpoints/(?P<sequence>\d{20})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A chunk that counts no more: where its objects stand, and since when."""

    bucket: str
    name: str
    traces_name: str
    filter_name: str
    removed_unix_ns: int

    @classmethod
    def of(cls, chunk: ChunkEntry, now_unix_ns: int) -> Removed:
        """The removal of a chunk."""
        names = {name: getattr(chunk, name) for name in ("bucket", "name", "traces_name", "filter_name")}
        return cls(**names, removed_unix_ns=now_unix_ns)

    @property
    def objects(self) -> tuple[str, str, str]:
        """The chunk's objects."""
        return self.name, self.traces_name, self.filter_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A chunk that holds spans of the ranges from the manifest at `first` up to offset `last`, in others' place.

    record_time_max_unix_ns, written_unix_ns: the latest of what it was made from.
    """

    first: int
    last: int
    record_time_max_unix_ns: int
    written_unix_ns: int
    chunk: ChunkEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change. oldest: manifests that begin below this offset count no more. One that changes nothing is a fence.

    damaged, mended: names of chunks that count and were found so.
    """

    topic: str
    partition: int
    sequence: int
    token: str
    worker: str
    written_unix_ns: int
    oldest: int = 0
    removed: tuple[Removed, ...] = ()
    added: tuple[Added, ...] = ()
    damaged: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The object's name in the first bucket."""
        return edit_name(self.topic, self.partition, self.sequence)

    def to_json(self) -> bytes:
        """The object's content."""
        return orjson.dumps(
            {"format": FORMAT}
            | {name: getattr(self, name) for name in _EDIT}
            | {"removed": [_values(one) for one in self.removed], "added": [_added_values(one) for one in self.added]}
            | {name: names for name in _NAMES if (names := getattr(self, name))}
        )

    @classmethod
    def from_json(cls, content: bytes) -> Edit:
        """Read an edit of this format or an earlier one. Raises FormatVersionError, MalformedRecordError."""
        try:
            read = _read(content, "an edit")
            values = {name: read[name] for name in _EDIT}
            values |= {name: tuple(map(str, read.get(name, ()))) for name in _NAMES}
            return cls(**values, removed=_removed(read["removed"]), added=_added(read["added"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise MalformedRecordError(f"this is no edit: {error!r}") from error


_NAMES = ("damaged", "mended")  # left out where there are none
_EDIT = tuple(one.name for one in fields(Edit) if one.name not in ("removed", "added", *_NAMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class EditState:
    """What all edits up to `sequence` come to. removed: by name; damaged: names of chunks that count."""

    sequence: int = 0
    oldest: int = 0
    removed: Mapping[str, Removed] = field(default_factory=dict)
    added: tuple[Added, ...] = ()
    damaged: frozenset[str] = frozenset()

    def after(self, edit: Edit) -> EditState:
        """With one more edit. Raises MalformedRecordError unless it is the next one."""
        if edit.sequence != self.sequence + 1:
            raise MalformedRecordError(f"edit {edit.sequence} does not follow {self.sequence}")
        gone = {one.name for one in edit.removed}
        oldest = max(self.oldest, edit.oldest)
        damaged = self.damaged.union(edit.damaged) - gone.union(edit.mended)
        return EditState(
            sequence=edit.sequence,
            oldest=oldest,
            removed=dict(self.removed) | {one.name: one for one in edit.removed},
            added=tuple(one for one in self.added if one.chunk.name not in gone) + edit.added,
            damaged=frozenset(name for name in damaged if _first_of(name) >= oldest),
        )

    def chunks_of(self, manifest: Manifest) -> tuple[ChunkEntry, ...]:
        """The chunks that count of a manifest: those of its own that were not removed, and those put in their place."""
        if manifest.first < self.oldest:
            return ()
        own = tuple(one for one in manifest.chunks if one.name not in self.removed)
        return own + tuple(one.chunk for one in self.added if one.first == manifest.first)

    def applied(self, manifest: Manifest) -> Manifest:
        """The manifest as it counts."""
        return replace(manifest, chunks=self.chunks_of(manifest))

    def without(self, forgotten: set[str]) -> EditState:
        """The same, but for removals that nobody need know any more."""
        return replace(self, removed={name: one for name, one in self.removed.items() if name not in forgotten})

    def to_json(self) -> bytes:
        """The content of a checkpoint."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "sequence": self.sequence,
                "oldest": self.oldest,
                "removed": [_values(one) for one in self.removed.values()],
                "added": [_added_values(one) for one in self.added],
            }
            | ({"damaged": sorted(self.damaged)} if self.damaged else {})
        )

    @classmethod
    def from_json(cls, content: bytes) -> EditState:
        """Read a checkpoint of this format or an earlier one. Raises FormatVersionError, MalformedRecordError."""
        try:
            read = _read(content, "a checkpoint")
            return cls(
                sequence=int(read["sequence"]),
                oldest=int(read["oldest"]),
                removed={one.name: one for one in _removed(read["removed"])},
                added=_added(read["added"]),
                damaged=frozenset(map(str, read.get("damaged", ()))),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise MalformedRecordError(f"this is no checkpoint: {error!r}") from error


def edit_name(topic: str, partition: int, sequence: int) -> str:
    """The name under which only one attempt can put the edit with this number."""
    return f"{manifest_prefix(topic, partition)}edits/{sequence:020d}.json"


def checkpoint_name(topic: str, partition: int, sequence: int) -> str:
    """The name of the checkpoint of the state after this edit."""
    return f"{manifest_prefix(topic, partition)}checkpoints/{sequence:020d}.json"


def edit_number(name: str) -> int | None:
    """The sequence of an edit's name; None for any other object."""
    found = EDIT_NAME.fullmatch(name)
    return int(found["sequence"]) if found else None


def checkpoint_number(name: str) -> int | None:
    """The sequence of a checkpoint's name; None for any other object."""
    found = CHECKPOINT_NAME.fullmatch(name)
    return int(found["sequence"]) if found else None


def _read(content: bytes, what: str) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(content)
    if read["format"] > FORMAT:
        raise FormatVersionError(
            f"{what} has format {read['format']}, this version reads up to {FORMAT}: upgrade spanstream"
        )
    return read


def _first_of(chunk: str) -> int:
    """The offset that a chunk's name begins with; of a name that is none the lowest."""
    parsed = parse_chunk_object(chunk)
    return parsed[2] if parsed is not None else 0


def _values(one: Removed | Added) -> dict[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one)}


def _added_values(one: Added) -> dict[str, Any]:
    return _values(one) | {"chunk": chunk_values(one.chunk)}


def _removed(read: list[dict[str, Any]]) -> tuple[Removed, ...]:
    names = [one.name for one in fields(Removed)]
    return tuple(Removed(**{name: one[name] for name in names}) for one in read)


def _added(read: list[dict[str, Any]]) -> tuple[Added, ...]:
    names = [one.name for one in fields(Added) if one.name != "chunk"]
    return tuple(Added(**{name: one[name] for name in names}, chunk=chunk_from_values(one["chunk"])) for one in read)
