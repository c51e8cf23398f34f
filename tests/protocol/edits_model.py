"""A model of edits: two owners of one partition, one of them late, a bucket, questions; every order of their steps.

The rules are those of pipeline.store.edits, edit_log, housekeeping and compaction. With
all of them no order of steps may break an invariant; with one of them off some order does, and is printed.

    python -m tests.protocol.edits_model            each rule off, then all on, in longer scenes too
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

RULES = {
    "number": "an edit is put under the number after the state it was prepared on, not under the next free one",
    "anew": "an edit that was refused is prepared anew: from chunks written after the one that was taken",
    "skip": "an edit below a checkpoint counts for nothing",
    "look": "who puts an edit lists afterwards: one below a checkpoint may not have been taken",
    "drawn": "a checkpoint of an edit's own number was drawn from it; behind a later one nothing of it is deleted",
    "fence": "a sweep puts an edit between listing and deleting",
    "folded": "what an edit or a checkpoint added has a name too",
    "below": "a sweep leaves alone what begins at the mark or later",
    "aged": "objects are deleted when no question can be at them, told by who deletes: no clock that somebody may set",
    "seen": "that time begins when who deletes has seen the edit in the bucket, not when somebody prepared it",
    "whole": "a merged chunk holds all rows of its parts",
    "parts": "an edit removes the chunks that were merged, and no others that came meanwhile",
    "once": "of copies of a row in what is merged one stays",
    "left": "after an unknown outcome the merged chunk is left: its edit may stand, or come late",
    "window": "chunks of the deduplication window are not merged: a new owner reads them where it looks",
    "asked": "what is merged ends below the horizon of every question under way",
    "first": "a checkpoint stands before the edits below it are deleted",
    "newest": "retention keeps the newest manifest",
}
STATES_MAX = 150_000
COPY = 100  # the row that is a late copy of row 0


class Chunk(NamedTuple):
    """first: the manifest it is at. rows: offsets."""

    name: str
    first: int
    rows: frozenset[int]


class Edit(NamedTuple):
    """One change; ident tells attempts apart."""

    number: int
    ident: int
    removed: frozenset[Chunk] = frozenset()
    added: frozenset[Chunk] = frozenset()


class Folded(NamedTuple):
    """What edits come to."""

    number: int = 0
    removed: frozenset[Chunk] = frozenset()
    added: frozenset[Chunk] = frozenset()


class Owner(NamedTuple):
    """What an owner is at: nothing; an edit prepared; put; a sweep that has listed; one whose fence stands."""

    at: str = "idle"
    edit: Edit | None = None
    seen: frozenset[Chunk] = frozenset()
    believes: frozenset[Chunk] = frozenset()  # removed, as far as it knows


class World(NamedTuple):
    """The bucket, the owners, a question under way, what may still happen."""

    manifests: tuple[Chunk, ...]
    objects: frozenset[Chunk]
    edits: frozenset[Edit]
    checkpoint: Folded | None
    owners: tuple[Owner, Owner]
    question: frozenset[Chunk] | None
    horizon: int | None  # of a question that has not looked up its chunks
    late: frozenset[Edit]  # puts without an answer, still on their way
    sealing: Chunk | None
    expired: frozenset[int]
    noted: frozenset[Chunk]  # seen to be removed, while the question that is under way was
    aged: frozenset[Chunk]  # ... and no question is under way any more that was then
    attempts: int
    left: tuple[int, ...]  # merge, sweep, retire, draw together, ask, seal, lose an answer


MERGE, SWEEP, RETIRE, DRAW, ASK, SEAL, LOSE = range(7)
SCENES = {  # how often each may happen
    "two owners merge": (2, 0, 0, 0, 1, 0, 0),
    "merge and sweep": (2, 1, 0, 0, 1, 0, 0),
    "sweep and seal": (0, 1, 0, 0, 0, 1, 0),
    "drawn together": (2, 0, 1, 1, 1, 0, 0),
    "swept after a checkpoint": (1, 1, 0, 1, 0, 0, 0),
    "one owner sleeps": (0, 2, 1, 1, 0, 0, 0),
    "one owner merges late": (3, 0, 0, 1, 0, 1, 0),
    "merged while a question goes on": (1, 0, 0, 0, 1, 2, 0),
    "answers are lost": (1, 1, 0, 0, 0, 0, 1),
    "retention": (1, 0, 2, 0, 0, 1, 0),
}
LONG_SCENES = {
    "two sweeps": (2, 2, 0, 1, 1, 1, 0),
    "all of it": (2, 1, 1, 1, 1, 1, 0),
    "long retention": (1, 0, 3, 1, 1, 1, 0),
}


class BrokenError(Exception):
    """An invariant does not hold."""


class Model:
    """The steps, with some rules off."""

    def __init__(self, off: frozenset[str] = frozenset()) -> None:
        self.off = off

    def start(self, left: tuple[int, ...]) -> World:
        """Three ranges stored, a late copy in the second, and a chunk that nobody named."""
        rows = (0,), (1, COPY), (2,)
        stored = tuple(Chunk(f"m{first}", first, frozenset(held)) for first, held in enumerate(rows))
        orphan = Chunk("orphan", 0, frozenset([0]))
        return World(
            stored,
            frozenset([*stored, orphan]),
            frozenset(),
            None,
            (Owner(), Owner()),
            None,
            None,
            frozenset(),
            None,
            frozenset(),
            frozenset(),
            frozenset(),
            0,
            left,
        )

    def on(self, rule: str) -> bool:
        return rule not in self.off

    # ---- what counts

    def folded(self, world: World) -> Folded:
        """As any reader sees it."""
        state = world.checkpoint or Folded()
        for edit in sorted(world.edits):
            if edit.number == state.number + 1 or (not self.on("skip") and edit.number <= state.number):
                added = (state.added - edit.removed) | edit.added
                state = Folded(max(edit.number, state.number), state.removed | edit.removed, added)
        return state

    def live(self, world: World) -> frozenset[Chunk]:
        """The chunks that count."""
        state = self.folded(world)
        return (frozenset(world.manifests) - state.removed) | state.added

    @staticmethod
    def mark(world: World) -> int:
        """Where the next range begins."""
        return max((one.first + 1 for one in world.manifests), default=0)

    # ---- steps

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """What may happen next."""
        for at in (0, 1):
            yield from self._owner(world, at)
        if world.question is None and world.horizon is None and (asked := _spent(world, ASK)):
            yield "a question begins", asked._replace(horizon=self.mark(world))
        if world.horizon is not None:
            chunks = frozenset(one for one in self.live(world) if _last(one) < world.horizon)
            yield "it looks up its chunks", self._looked(world, chunks)
        for late in world.late:
            taken = any(one.number == late.number for one in world.edits)
            came = world.edits if taken else world.edits | {late}
            yield f"edit {late.number} comes late", world._replace(late=world.late - {late}, edits=came)
        if world.question is not None:
            yield "the question ends", world._replace(question=None, noted=frozenset(), aged=world.aged | world.noted)
        if world.sealing is None and (sealed := _spent(world, SEAL)):
            mark = self.mark(world)
            chunk = Chunk(f"m{mark}", mark, frozenset([mark]))
            yield f"chunk {mark} is written", sealed._replace(sealing=chunk, objects=world.objects | {chunk})
        if world.sealing is not None:
            named = world._replace(manifests=(*world.manifests, world.sealing), sealing=None)
            yield f"manifest {world.sealing.first} is put", named

    @staticmethod
    def _looked(world: World, chunks: frozenset[Chunk]) -> World:
        assert world.horizon is not None
        wanted = set(range(world.horizon)) - world.expired
        if missing := wanted - {row for one in chunks for row in one.rows}:
            raise BrokenError(f"a question misses row {min(missing)}")
        return world._replace(question=chunks, horizon=None)

    def _owner(self, world: World, at: int) -> Iterator[tuple[str, World]]:
        owner, who = world.owners[at], f"owner {at}"
        if owner.at == "idle":
            yield from self._begin(world, at)
            yield from self._see(world, at)
            yield from self._delete(world, at)
        elif owner.at == "prepared":
            yield from self._put(world, at, f"{who} puts")
            yield from self._lose(world, at)
        elif owner.at == "put":
            yield f"{who} looks for checkpoints", self._looked_for_checkpoints(world, at)
        elif owner.at == "listed":
            edit = Edit(self.folded(world).number + 1, world.attempts)
            edits = world.edits | {edit} if self.on("fence") else world.edits
            again = world._replace(attempts=world.attempts + 1, edits=edits)
            fenced = owner._replace(at="fenced", seen=self._orphans(again, owner.seen))
            yield f"{who} looks for names, behind edit {edit.number}", _owned(again, at, fenced)
        elif owner.at == "fenced":
            gone = {one for one in owner.seen if not self.on("aged") or one not in (world.question or ())}
            yield f"{who} sweeps", _owned(world._replace(objects=world.objects - gone), at, Owner())

    def _orphans(self, world: World, seen: frozenset[Chunk]) -> frozenset[Chunk]:
        state, mark = self.folded(world), self.mark(world)
        named = set(world.manifests) | (state.added if self.on("folded") else frozenset()) | state.removed
        return frozenset(one for one in seen if one not in named and (one.first < mark or not self.on("below")))

    def _begin(self, world: World, at: int) -> Iterator[tuple[str, World]]:
        state, live, ident = self.folded(world), self.live(world), world.attempts
        parts = frozenset(one for one in live if self._may_merge(world, one))
        if len(parts) > 1 and (merge := _spent(world, MERGE)):
            rows = frozenset().union(*(one.rows for one in parts))
            kept = rows if self.on("whole") else rows - {max(rows - {COPY})}
            kept = kept - {COPY} if self.on("once") and 0 in kept else kept
            merged = Chunk(f"merged{ident}", min(one.first for one in parts), kept)
            edit = Edit(state.number + 1, ident, parts, frozenset([merged]))
            merge = self._prepared(merge._replace(objects=world.objects | {merged}, attempts=ident + 1), at, edit)
            yield f"owner {at} writes {merged.name}", merge
        if live and (retire := _spent(world, RETIRE)):
            oldest = min(live, key=lambda one: one.first)
            edit = Edit(state.number + 1, ident, frozenset([oldest]))
            prepared = self._prepared(retire._replace(attempts=ident + 1), at, edit)
            yield f"owner {at} would retire {oldest.name}", prepared
        if sweep := _spent(world, SWEEP):
            yield f"owner {at} lists the chunks", _owned(sweep, at, Owner("listed", None, world.objects))
        if state.number > 1 and (draw := _spent(world, DRAW)):
            yield from self._draw(draw, at, state)
        counting = [one for one in world.manifests if any(one.first == each.first for each in live)]
        first = min((one.first for one in counting), default=self.mark(world))
        kept_manifests = tuple(one for one in world.manifests if one.first >= first)
        if self.on("newest") and not kept_manifests:
            kept_manifests = world.manifests[-1:]
        if kept_manifests != world.manifests and world.left[MERGE] == 0:
            yield f"owner {at} deletes manifests below {first}", world._replace(manifests=kept_manifests)

    def _prepared(self, world: World, at: int, edit: Edit) -> World:
        begun = world if self.on("seen") else _seen(world, edit.removed)
        return _owned(begun, at, Owner("prepared", edit))

    def _may_merge(self, world: World, chunk: Chunk) -> bool:
        in_window = self.on("window") and _last(chunk) >= self.mark(world) - 1
        asked = self.on("asked") and world.horizon is not None and _last(chunk) >= world.horizon
        return not in_window and not asked

    def _lose(self, world: World, at: int) -> Iterator[tuple[str, World]]:
        """An edit is put, and its answer is lost: it is on its way."""
        edit = world.owners[at].edit
        if edit is not None and edit.added and (lost := _spent(world, LOSE)):
            objects = world.objects if self.on("left") else world.objects - edit.added
            lost = lost._replace(late=world.late | {edit}, objects=objects)
            yield f"owner {at} puts {edit.number}, without an answer", _owned(lost, at, Owner())

    def _draw(self, world: World, at: int, state: Folded) -> Iterator[tuple[str, World]]:
        rest = frozenset(one for one in world.edits if one.number >= state.number)
        if self.on("first"):
            yield f"owner {at} draws together up to {state.number}", world._replace(checkpoint=state, edits=rest)
        else:
            yield f"owner {at} deletes edits and dies", world._replace(edits=rest)

    def _put(self, world: World, at: int, who: str) -> Iterator[tuple[str, World]]:
        edit = world.owners[at].edit
        assert edit is not None
        if not self.on("number"):
            edit = edit._replace(number=self.folded(world).number + 1)
        if not self.on("parts") and edit.added:
            edit = edit._replace(removed=self.live(world))
        if any(one.number == edit.number for one in world.edits):
            if self.on("anew"):
                yield f"{who} {edit.number}, refused", _owned(world, at, Owner())
            else:
                later = edit._replace(number=self.folded(world).number + 1)
                yield f"{who} {edit.number}, refused, tries {later.number}", _owned(world, at, Owner("prepared", later))
            return
        void = world.checkpoint is not None and edit.number <= world.checkpoint.number
        expired = world.expired
        if not edit.added and not void:
            expired |= frozenset().union(*(one.rows for one in edit.removed))
        put = world._replace(edits=world.edits | {edit}, expired=expired)
        yield f"{who} {edit.number}", _owned(put, at, Owner("put", edit))

    def _looked_for_checkpoints(self, world: World, at: int) -> World:
        """Whether its edit was taken, as far as it can tell; what it takes for refused it clears away."""
        edit = world.owners[at].edit
        assert edit is not None
        behind = world.checkpoint.number - edit.number if world.checkpoint is not None else -1
        if behind < 0 or not self.on("look") or (behind == 0 and self.on("drawn")):
            return _owned(world, at, Owner(believes=edit.removed))
        objects = world.objects if self.on("drawn") else world.objects - edit.added
        return _owned(world._replace(objects=objects), at, Owner())

    def _see(self, world: World, at: int) -> Iterator[tuple[str, World]]:
        """What is removed, for the first time: from then on its time is counted."""
        removed = self.folded(world).removed | world.owners[at].believes
        if new := (removed & world.objects) - world.noted - world.aged:
            yield f"owner {at} sees what is removed", _seen(world, new)

    def _delete(self, world: World, at: int) -> Iterator[tuple[str, World]]:
        """Objects of what was removed."""
        removed = self.folded(world).removed | world.owners[at].believes
        for chunk in removed & world.objects:
            if not self.on("aged") or chunk in world.aged:
                yield f"owner {at} deletes {chunk.name}", world._replace(objects=world.objects - {chunk})

    # ---- invariants

    def check(self, world: World) -> None:
        """Raises BrokenError."""
        live = self.live(world)
        if gone := live - world.objects:
            raise BrokenError(f"{min(gone).name} counts and is deleted")
        rows = sorted(row for one in live for row in one.rows)
        if len(rows) != len(set(rows)):
            raise BrokenError(f"rows {rows}: one counts twice")
        wanted = {one.first for one in world.manifests}
        if missing := wanted - world.expired - set(rows):
            raise BrokenError(f"row {min(missing)} is missing")
        if world.question is not None and (away := world.question - world.objects):
            raise BrokenError(f"a question reads {min(away).name}, which is deleted")
        if world.sealing is not None and world.sealing not in world.objects:
            raise BrokenError(f"{world.sealing.name} is deleted before its manifest")
        if any({0, COPY} <= one.rows for one in live):
            raise BrokenError("a merged chunk holds a copy")
        newest = self.mark(world) - 1
        if newest not in world.expired and not any(newest in one.rows and one.first >= newest for one in live):
            raise BrokenError(f"a new owner's window lacks row {newest}")
        if self.mark(world) < 3:
            raise BrokenError("the mark goes back")


def _last(chunk: Chunk) -> int:
    return max((row for row in chunk.rows if row != COPY), default=chunk.first)


def _spent(world: World, what: int) -> World | None:
    left = world.left
    return world._replace(left=(*left[:what], left[what] - 1, *left[what + 1 :])) if left[what] else None


def _seen(world: World, chunks: frozenset[Chunk]) -> World:
    """Their time begins: over when the question has ended that is under way now."""
    if world.question is None and world.horizon is None:
        return world._replace(aged=world.aged | chunks)
    return world._replace(noted=world.noted | chunks)


def _owned(world: World, at: int, owner: Owner) -> World:
    return world._replace(owners=(owner, world.owners[1]) if at == 0 else (world.owners[0], owner))


class Found(NamedTuple):
    """How many states were looked at; the shortest history that breaks, or none; whether these were all states."""

    states: int
    broken: str
    history: tuple[str, ...]
    all_of_them: bool


def explore(model: Model, left: tuple[int, ...], states_max: int = STATES_MAX) -> Found:
    """Every order of steps, breadth first."""
    start = model.start(left)
    came: dict[World, tuple[World | None, str]] = {start: (None, "start")}
    queue = [start]
    for world in queue:
        try:
            model.check(world)
        except BrokenError as error:
            return Found(len(came), str(error), _history(came, world), False)
        try:
            for label, after in model.steps(world):
                if after not in came and len(came) < states_max:
                    came[after] = (world, label)
                    queue.append(after)
        except BrokenError as error:
            return Found(len(came), str(error), _history(came, world), False)
    return Found(len(came), "", (), len(came) < states_max)


def _history(came: dict[World, tuple[World | None, str]], at: World) -> tuple[str, ...]:
    history = []
    while (back := came[at])[0] is not None:
        history.append(back[1])
        at = back[0]
    return tuple(reversed(history))


def broken_without(rule: str) -> Found:
    """The first history found that breaks without the rule."""
    found = Found(0, "", (), False)
    for left in SCENES.values():
        found = explore(Model(frozenset([rule])), left)
        if found.broken:
            break
    return found


def main() -> int:
    """Returns the exit code."""
    bad = 0
    for rule, text in RULES.items():
        found = broken_without(rule)
        bad += not found.broken
        print(f"without {rule} ({text}):", found.broken or "NOTHING BREAKS", *found.history, sep="\n   ")  # noqa: T201
    for scene, left in (SCENES | LONG_SCENES).items():
        found = explore(Model(), left)
        bad += bool(found.broken)
        looked = f"{found.states} states{'' if found.all_of_them else ', not all'}"
        print(f"all rules, {scene}: {looked}, {found.broken or 'nothing breaks'}", *found.history, sep="\n   ")  # noqa: T201
    return bad


if __name__ == "__main__":
    sys.exit(main())
