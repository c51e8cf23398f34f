"""A small file that is read again when it changes. What cannot be read changes nothing: the old content stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from pipeline import telemetry
from topics.errors import SettingsError

log = structlog.get_logger("doors")
T = TypeVar("T")
LOOK_EVERY_S = 1.0
FILE_BYTES_MAX = 4 << 20


class WatchedFile(Generic[T]):
    """`value`: what the file said when it could be read last. Looks at the file once a second at most."""

    def __init__(self, path: Path, what: str, read: Callable[[str], T], clock_s: Callable[[], float]) -> None:
        """what: for logs and metrics. read: raises SettingsError for a wrong text.

        Raises SettingsError when the file cannot be read at the start: there is no old content yet.
        """
        self._path, self._what, self._read, self._clock_s = path, what, read, clock_s
        self._looked_s = clock_s()
        self._seen = self._version()
        self._value = self._content()

    @property
    def value(self) -> T:
        """The content, read again when the file changed."""
        now_s = self._clock_s()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            version = self._version()
            if version != self._seen:
                self._seen = version
                self._reload()
        return self._value

    def _reload(self) -> None:
        try:
            self._value = self._content()
        except SettingsError as error:
            telemetry.FILE_RELOADS.labels(file=self._what, outcome="refused").inc()
            log.error("file_not_taken", file=str(self._path), what=self._what, error=str(error), counts="the old one")
        else:
            telemetry.FILE_RELOADS.labels(file=self._what, outcome="taken").inc()
            log.info("file_taken", file=str(self._path), what=self._what)

    def _version(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _content(self) -> T:
        try:
            with self._path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
            if len(content) > FILE_BYTES_MAX:
                raise SettingsError(f"{self._what} file {self._path} is larger than {FILE_BYTES_MAX} bytes")
            return self._read(content.decode())
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self._what} file {self._path} cannot be read: {error}") from error
        except SettingsError as error:
            raise SettingsError(f"{self._what} file {self._path}: {error}") from error


def watched(path: Path, what: str, read: Callable[[str], T]) -> WatchedFile[T]:
    """By the process's clock."""
    return WatchedFile(path, what, read, time.monotonic)
