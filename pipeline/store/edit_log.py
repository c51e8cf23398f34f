"""The edits of a partition in the first bucket: read and folded, put one after the other, drawn together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from pipeline.store.edits import (
    Edit,
    EditState,
    checkpoint_name,
    checkpoint_number,
    edit_name,
    edit_number,
)
from pipeline.store.manifest import Manifest, manifest_prefix, parse_manifest_name, read_named
from pipeline.store.objects import ObjectStore
from topics.errors import StoreConflictError, StoreUnavailableError

log = structlog.get_logger(__name__)
T = TypeVar("T")
LISTINGS_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The names of one listing of a partition: manifests oldest first; checkpoints and edits by number."""

    manifests: tuple[str, ...]
    checkpoints: tuple[int, ...]
    edits: tuple[int, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Listed:
        """What stands under manifest_prefix of a partition."""
        manifests, checkpoints, edits = [], [], []
        for name in names:
            if parse_manifest_name(name) is not None:
                manifests.append(name)
            elif (number := checkpoint_number(name)) is not None:
                checkpoints.append(number)
            elif (number := edit_number(name)) is not None:
                edits.append(number)
        return cls(
            manifests=tuple(sorted(manifests)), checkpoints=tuple(sorted(checkpoints)), edits=tuple(sorted(edits))
        )

    @property
    def newest(self) -> int:
        """The number of the newest edit; 0 where there is none."""
        return max((0, *self.checkpoints[-1:], *self.edits[-1:]))


class Unsettled(Exception):  # noqa: N818 - no error: a listing that was overtaken
    """The listing names what is there no longer, or lacks an edit: list again."""


def listed(store: ObjectStore, topic: str, partition: int, start_after: str = "") -> Listed:
    """One listing of a partition. Raises StoreUnavailableError."""
    found = store.list(store.buckets[0], manifest_prefix(topic, partition), start_after=start_after)
    return Listed.of(one.name for one in found)


def state_of(
    store: ObjectStore, topic: str, partition: int, names: Listed, known: EditState | None = None
) -> EditState:
    """The state after the newest edit of a listing; of what is `known` already nothing is read again.

    Raises Unsettled, StoreUnavailableError; FormatVersionError and MalformedRecordError for what it refuses.
    """
    state = known or EditState()
    if names.checkpoints and names.checkpoints[-1] > state.sequence:
        state = _read(store, checkpoint_name(topic, partition, names.checkpoints[-1]), EditState.from_json)
    for number in names.edits:
        if number == state.sequence + 1:
            state = state.after(_read(store, edit_name(topic, partition, number), Edit.from_json))
        elif number > state.sequence:
            raise Unsettled
    return state


def read(store: ObjectStore, topic: str, partition: int) -> tuple[Listed, EditState]:
    """The names that stand in the bucket of a partition, and what its edits come to. Raises as state_of does."""
    for _ in range(LISTINGS_MAX):
        names = listed(store, topic, partition)
        try:
            return names, state_of(store, topic, partition, names)
        except Unsettled:
            continue
    raise StoreUnavailableError(f"the edits of partition {partition} change faster than they can be read")


def read_folded(store: ObjectStore, topic: str, partition: int) -> Iterable[Manifest]:
    """A partition's manifests as they count, oldest first. Raises as read, and as Manifest.from_json."""
    names, state = read(store, topic, partition)
    for name in names.manifests:
        content = store.get(store.buckets[0], name)
        if content is not None and (manifest := Manifest.from_json(content)).first >= state.oldest:
            yield state.applied(manifest)


def put(store: ObjectStore, edit: Edit) -> bool:
    """Whether this edit is taken: it stands under its number, and no checkpoint was past it.

    An edit prepared by somebody who slept for long may find its number free, because it was drawn together: it counts
    for nothing. A checkpoint of its own number was drawn from it, since an edit is deleted only behind a later one.
    Behind a later one nobody can tell. Raises StoreUnavailableError when the outcome is not known: prepare it anew, and
    delete nothing that it names.
    """
    conditional = store.refuses_second_put()
    if not conditional and (there := _token(store, edit)) is not None:
        return there == edit.token
    try:
        store.put_if_absent(store.buckets[0], edit.name, edit.to_json())
    except (StoreConflictError, StoreUnavailableError) as error:
        there = _token(store, edit)
        if there is None:
            raise StoreUnavailableError(f"{edit.name} was not stored: {error}") from error
        if there != edit.token:
            return False
    names = listed(store, edit.topic, edit.partition, _before_checkpoints(edit))
    if names.checkpoints and names.checkpoints[-1] > edit.sequence:
        raise StoreUnavailableError(f"{edit.name} stands, and a later checkpoint: it may have been drawn from it")
    return True


def draw_together(store: ObjectStore, topic: str, partition: int, state: EditState) -> None:
    """Put a checkpoint of the state, then delete older ones and the edits below it; the newest edit stays."""
    name = checkpoint_name(topic, partition, state.sequence)
    try:
        store.put_if_absent(store.buckets[0], name, state.to_json())
    except StoreConflictError:
        log.info("checkpoint_there", partition=partition, sequence=state.sequence)
    names = listed(store, topic, partition, f"{manifest_prefix(topic, partition)}checkpoints/")
    if state.sequence not in names.checkpoints:
        return
    for number in names.edits:
        if number < state.sequence:
            store.remove(store.buckets[0], edit_name(topic, partition, number))
    for number in names.checkpoints:
        if number < state.sequence:
            store.remove(store.buckets[0], checkpoint_name(topic, partition, number))


def _before_checkpoints(edit: Edit) -> str:
    return f"{manifest_prefix(edit.topic, edit.partition)}checkpoints/"


def _token(store: ObjectStore, edit: Edit) -> str | None:
    content = store.get(store.buckets[0], edit.name)
    return None if content is None else Edit.from_json(content).token


def _read(store: ObjectStore, name: str, from_json: Callable[[bytes], T]) -> T:
    content = store.get(store.buckets[0], name)
    if content is None:
        raise Unsettled
    return read_named(name, content, from_json)
