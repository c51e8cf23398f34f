"""How a question was answered: what was chosen and why, what was read, how long each step took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.store.manifest import ChunkEntry

SNAPSHOT_STEP = "snapshot: what is live, and where what is stored ends"
READ, KEPT, LEFT_OUT, NOT_REACHED = "read", "kept", "left out", "not reached"
REST_OF_TRACES = "may hold more spans of traces that were found"
WHY = {
    READ: "rows in it may match",
    KEPT: "what this statement gives for it is known from an earlier question",
    NOT_REACHED: "what was read before it was enough",
}


class Ref(Protocol):
    """A chunk, as pipeline.query.chunks.ChunkRef."""

    @property
    def entry(self) -> ChunkEntry: ...

    @property
    def partition(self) -> int: ...


@dataclass(slots=True)
class Statement:
    """One statement of the engine. bytes: of the chunks that it may look into; copied: so many are on the disk here."""

    sql: str
    seconds: float
    rows: int
    chunks: int = 0
    bytes: int = 0
    copied: int = 0


@dataclass(slots=True)
class Step:
    """A part of the way, whatever it waits for included."""

    name: str
    depth: int = 0
    seconds: float = 0.0
    statements: list[Statement] = field(default_factory=list)


@dataclass(slots=True)
class _Chunk:
    ref: Ref
    verdict: str
    why: str


class Watch:
    """Looks on while one question is answered; belongs to the thread that answers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.conditions: list[tuple[str, list[Any]]] = []
        self.live_spans = 0
        self.known: list[tuple[int, int]] = []  # chunks of all times, their bytes
        self._open: list[Step] = []
        self._whole = False
        self._chunks: dict[str, _Chunk] = {}

    @contextmanager
    def step(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """A step; what stands in another is a part of that one's time as well. whole: it reads the rest of traces."""
        was_whole, self._whole = self._whole, whole or self._whole
        one, began_s = Step(name, len(self._open)), time.monotonic()
        self.steps.append(one)
        self._open.append(one)
        try:
            yield
        finally:
            one.seconds = time.monotonic() - began_s
            self._open.pop()
            self._whole = was_whole

    def statement(self, sql: str, seconds: float, rows: int) -> None:
        """The engine has answered."""
        if not self._open:
            self.steps.append(Step("other statements"))
        step = self._open[-1] if self._open else self.steps[-1]
        step.statements.append(Statement(sql, seconds, rows))
        if not self._open:
            step.seconds += seconds

    def chose(self, refs: Sequence[Ref], why_not: Sequence[str], condition: tuple[str, list[Any]]) -> None:
        """Chunks of the range, and why each is not opened; empty where it may be."""
        self.conditions.append(condition)
        for ref, why in zip(refs, why_not, strict=True):
            known = self._chunks.get(ref.entry.name)
            if known is None or (known.verdict == LEFT_OUT and not why):
                verdict = LEFT_OUT if why else NOT_REACHED
                self._chunks[ref.entry.name] = _Chunk(ref, verdict, why or WHY[NOT_REACHED])

    def read(self, refs: Sequence[Ref], copied: int) -> None:
        """The last statement looked into these, of which so many stand on the local disk."""
        for ref in refs:
            self._mark(ref, READ)
        statements = (self._open[-1] if self._open else self.steps[-1]).statements
        one = statements[-1]
        one.chunks, one.bytes, one.copied = len(refs), sum(ref.entry.bytes for ref in refs), copied

    def kept(self, refs: Sequence[Ref]) -> None:
        """For these the answer was known."""
        for ref in refs:
            self._mark(ref, KEPT)

    def _mark(self, ref: Ref, verdict: str) -> None:
        known = self._chunks.get(ref.entry.name)
        if known is not None and known.verdict == READ and (known.why != REST_OF_TRACES or self._whole):
            return
        why = REST_OF_TRACES if self._whole and verdict == READ else WHY[verdict]
        if known is not None and known.verdict == LEFT_OUT:
            why = f"{known.why}, but {why}"
        self._chunks[ref.entry.name] = _Chunk(ref, verdict, why)

    # ---- told

    def told(self, chunks_max: int) -> dict[str, Any]:
        """As JSON. chunks_max: how many chunks are named; all are counted."""
        chunks = sorted(self._chunks.values(), key=lambda one: (-one.ref.entry.start_max_unix_ns, one.ref.entry.name))
        known = sum(count for count, _ in self.known)
        counts = {verdict: [one for one in chunks if one.verdict == verdict] for verdict in WHY | {LEFT_OUT: ""}}
        return {
            "conditions": [
                {"sql": sql, "values": [_shown(value) for value in values]} for sql, values in self.conditions
            ],
            "live": {"spans": self.live_spans},
            "chunks": {
                "known": known,
                "outOfRange": max(0, known - len(chunks)),
                "leftOut": len(counts[LEFT_OUT]),
                "notReached": len(counts[NOT_REACHED]),
                "kept": len(counts[KEPT]),
                "read": len(counts[READ]),
                "knownBytes": sum(size for _, size in self.known),
                "readBytes": sum(one.ref.entry.bytes for one in counts[READ]),
                "list": [_chunk_told(one) for one in chunks[:chunks_max]],
                "truncated": len(chunks) > chunks_max,
            },
            "steps": [_step_told(step) for step in self.steps],
        }


def _chunk_told(one: _Chunk) -> dict[str, Any]:
    entry = one.ref.entry
    return {
        "chunk": entry.name,
        "bucket": entry.bucket,
        "partition": one.ref.partition,
        "spans": entry.spans,
        "bytes": entry.bytes,
        "startMinUnixNano": str(entry.start_min_unix_ns),
        "startMaxUnixNano": str(entry.start_max_unix_ns),
        "verdict": one.verdict,
        "why": one.why,
    }


def _step_told(step: Step) -> dict[str, Any]:
    statements = [
        {
            "sql": one.sql,
            "ms": _ms(one.seconds),
            "rows": one.rows,
            "chunks": one.chunks,
            "bytes": one.bytes,
            "copied": one.copied,
        }
        for one in step.statements
    ]
    return {"step": step.name, "depth": step.depth, "ms": _ms(step.seconds), "statements": statements}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
