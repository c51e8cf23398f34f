"""Whether the store answers at all: known within a bound, so that nobody waits long for a store that hangs."""

from __future__ import annotations

import threading
import time

import structlog

from pipeline.store.objects import ObjectStore
from topics.errors import StoreUnavailableError
from topics.settings import StoreSettings

log = structlog.get_logger(__name__)
FRESH_S = 1.0  # what was heard so long ago still counts
AGAIN_S = 0.5
TRIES = 2  # within the time there is: one request that hangs does not make a store that does


class Reach:
    """Asks the store something small before much is asked of it. Thread-safe, blocking; close it in the end.

    Who finds out that it does not answer waits up to `timeout_s`; from then on nobody waits: a thread asks it again
    until it answers.
    """

    def __init__(self, settings: StoreSettings, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._store = ObjectStore(within(settings, timeout_s / TRIES))
        self._lock = threading.Lock()
        self._heard_s = float("-inf")
        self._closed = threading.Event()
        self.away = ""
        """Why it does not answer, as far as is known; empty where it does."""

    def check(self, *, fresh_s: float = FRESH_S) -> None:
        """Raises StoreUnavailableError where it does not answer. fresh_s: what was heard before that is not enough."""
        with self._lock:
            if not self.away and time.monotonic() - self._heard_s >= fresh_s:
                self._ask()
                if self.away:
                    log.warning("store_not_reached", error=self.away)
                    threading.Thread(target=self._ask_again, name="store-reach", daemon=True).start()
            if self.away:
                raise StoreUnavailableError(self.away)

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _ask(self) -> None:
        try:
            self._store.look(self._timeout_s)
        except StoreUnavailableError as error:
            self.away = str(error)
        else:
            self._heard_s, self.away = time.monotonic(), ""

    def _ask_again(self) -> None:
        while self.away and not self._closed.wait(AGAIN_S):
            self._ask()


def within(settings: StoreSettings, timeout_s: float) -> StoreSettings:
    """A store whose reads are given up when nothing comes for so long."""
    return settings.model_copy(update={"get_timeout_s": min(settings.get_timeout_s, timeout_s)})
