"""The deduplication window of one partition: which spans it has seen within a record time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEY_DTYPE = np.dtype([("hi", "<u8"), ("lo", "<u8")])
KEY_BYTES = KEY_DTYPE.itemsize
MERGE_FAN_IN = 4  # runs of one size class before they are merged: a look-up meets about 3 a class

Keys = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Run:
    """Keys of consecutive offsets, sorted by `hi`. time_max_unix_ns, last and taken_ns: of the records they came with,
    the last by the steady clock.
    """

    hi: npt.NDArray[np.uint64]
    lo: npt.NDArray[np.uint64]
    time_max_unix_ns: int
    last: int
    taken_ns: int

    @property
    def size_class(self) -> int:
        """Runs of one class differ in size by less than MERGE_FAN_IN times."""
        return int(np.log(max(1, len(self.hi))) / np.log(MERGE_FAN_IN))


class Window:
    """Sorted runs of 128-bit span keys, merged like a log-structured tree: O(log n) runs, 16 bytes a key.

    A run is forgotten when all its records lie more than window_s (record time, never the wall clock: a long outage
    does not empty it) behind the last one, and were taken as long ago (by a steady clock: whoever writes records may
    have a clock that jumps), or when more than keys_max keys are held, oldest first; but never while one of its records
    is not yet in a chunk. Two keys that agree in `hi` only are told apart unless both stand in one
    run, where one of them may be forgotten (chance about 1e-6 at 4 million keys): a copy of it would be stored.
    """

    def __init__(self, *, window_s: float, keys_max: int) -> None:
        self._window_ns = int(window_s * 1e9)
        self.keys_max = keys_max
        self._runs: list[Run] = []
        self._last_unix_ns = 0
        self._keys = 0

    def __len__(self) -> int:
        return self._keys

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self) * KEY_BYTES

    @property
    def runs(self) -> int:
        """Sorted runs that a look-up searches."""
        return len(self._runs)

    def holds(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """For each key whether the window has seen it. Shape (n,); O(n log n) per run, without sorting in `ordered`."""
        found = np.zeros(len(keys), dtype=bool)
        if not self._runs or not len(keys):
            return found
        order, hi, lo = _by_hi(keys)  # sorted probes walk a run in order: an order of magnitude fewer cache misses
        hit = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            at = np.searchsorted(run.hi, hi)
            np.minimum(at, len(run.hi) - 1, out=at)
            hit |= (run.hi[at] == hi) & (run.lo[at] == lo)
        if order is None:
            return hit
        found[order] = hit
        return found

    def add(self, keys: Keys, *, time_max_unix_ns: int, last: int, now_ns: int) -> None:
        """Take the keys of the records up to offset `last`, none of which `holds` knows.

        time_max_unix_ns: 0 where there was no record; now_ns: the steady clock.
        """
        self._last_unix_ns = time_max_unix_ns or self._last_unix_ns
        if not len(keys):
            return
        _, hi, lo = _by_hi(keys)
        self._runs.append(Run(hi, lo, time_max_unix_ns, last, now_ns))
        self._keys += len(hi)
        while self._merge_due():
            self._runs[-MERGE_FAN_IN:] = [_merged(self._runs[-MERGE_FAN_IN:])]

    def forget(self, mark: int, now_ns: int) -> None:
        """Drop runs beyond the window or the key limit whose records all lie below `mark`."""
        time_oldest, taken_oldest = self._last_unix_ns - self._window_ns, now_ns - self._window_ns
        while self._runs and self._runs[0].last < mark:
            run = self._runs[0]
            recent = run.time_max_unix_ns >= time_oldest or run.taken_ns > taken_oldest
            if recent and self._keys <= self.keys_max:
                break
            self._keys -= len(run.hi)
            del self._runs[0]

    def _merge_due(self) -> bool:
        newest = self._runs[-MERGE_FAN_IN:]
        return len(newest) == MERGE_FAN_IN and newest[0].size_class <= newest[-1].size_class


def ordered(keys: Keys) -> tuple[npt.NDArray[np.int64], Keys]:
    """An order by `hi`, shape (n,), and the keys in it: what a window takes without sorting again."""
    order = np.argsort(keys["hi"])
    return order, keys[order]


def _by_hi(keys: Keys) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The order by `hi`, None where the keys stand in it, and their halves in this order."""
    hi, lo = np.ascontiguousarray(keys["hi"]), np.ascontiguousarray(keys["lo"])
    if (hi[1:] >= hi[:-1]).all():
        return None, hi, lo
    order = np.argsort(hi)
    return order, hi[order], lo[order]


def _merged(runs: list[Run]) -> Run:
    hi = np.concatenate([run.hi for run in runs])
    order = np.argsort(hi, kind="stable")  # stable: numpy merges runs that are sorted already
    lo = np.concatenate([run.lo for run in runs])[order]
    return Run(hi[order], lo, max(run.time_max_unix_ns for run in runs), runs[-1].last, runs[-1].taken_ns)
