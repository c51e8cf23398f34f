"""uvicorn as our processes run it, and the socket it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from topics.errors import SettingsError

HEAD_BYTES_MAX = 128 << 10  # of a request's line and headers


class BoundedHead(HttpToolsProtocol):
    """A connection whose requests' heads come within timeout_keep_alive and HEAD_BYTES_MAX, or which is closed.

    uvicorn waits for ever for a first request, or for the rest of a head, and keeps all of it in memory.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._close()

    def on_message_begin(self) -> None:
        """A further request of this connection begins."""
        super().on_message_begin()
        if self._head_timer is None:
            self._begin_head()

    def on_headers_complete(self) -> None:
        """From here on the application bounds what comes."""
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._close)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        self._end_head()
        if not self.transport.is_closing():
            self.transport.close()


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: who runs the process decides when it stops. `up` is set when it listens."""

    def __init__(self, app: Any, **options: Any) -> None:
        """app: the ASGI application; options: uvicorn's beyond what all our servers share."""
        config = uvicorn.Config(
            app,
            http=BoundedHead,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            **options,
        )
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.up.set()


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A socket for `port` (0: any free one). Raises SettingsError, naming the setting, when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise SettingsError(f"{setting} {port} on {host} is taken or not ours: {exc.strerror}") from exc
    listener.set_inheritable(True)
    return listener
