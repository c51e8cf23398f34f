"""Which known traces are to be looked at again, and when: kept in a file, so that a canary started again goes on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.canary.known import Known
from topics.errors import SettingsError

VERSION = 1


@dataclass
class Pending:
    """A written trace and the number of checks it has had. seen: where it stood when it was last there."""

    seed: int
    written_unix_ns: int
    done: int = 0
    seen: dict[str, Any] | None = None

    @property
    def known(self) -> Known:
        """The trace."""
        return Known(self.seed, self.written_unix_ns)

    def due_unix_ns(self, ages_s: tuple[float, ...]) -> float:
        """When it is looked at next."""
        return self.written_unix_ns + ages_s[self.done] * 1e9


class State:
    """The pending traces, oldest first; pending_max: beyond it the oldest is forgotten. path None: in memory only."""

    def __init__(self, path: Path | None, pending_max: int) -> None:
        self._path, self._pending_max = path, pending_max
        self.pending: list[Pending] = []
        if path is not None and path.exists():
            try:
                document = json.loads(path.read_text())
                if document["version"] != VERSION:
                    raise ValueError(f"version {document['version']}")
                self.pending = [Pending(**one) for one in document["pending"]]
            except (ValueError, TypeError, KeyError, OSError) as exc:
                raise SettingsError(
                    f"--state {path} is no state of a canary ({exc}): remove it, or name another"
                ) from exc

    def save(self) -> None:
        """Write the file anew, as a whole or not at all."""
        self.pending = self.pending[-self._pending_max :]
        if self._path is None:
            return
        document = {"version": VERSION, "pending": [asdict(one) for one in self.pending]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
