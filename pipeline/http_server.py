"""uvicorn as our processes run it, and the socket it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.doors.renewal import keep_renewed
from pipeline.doors.tls import ServerTls
from pipeline.handed_on import PREFACE, HandedOn, may_be_http2
from topics.errors import SettingsError

HEAD_BYTES_MAX = 128 << 10  # of a request's line and headers


class BoundedHead(HttpToolsProtocol):
    """A connection whose requests' heads come within timeout_keep_alive and HEAD_BYTES_MAX, or which is closed.

    uvicorn waits for ever for a first request, or for the rest of a head, and keeps all of it in memory. Where another
    server listens at `http2_socket`, a connection that begins as HTTP/2 is handed on to it.
    """

    http2_socket = ""
    handed_on: ClassVar[set[HandedOn]] = set()
    # To a client that can speak both, over TLS, HTTP/1.1 is offered first: what is handed on is for those who cannot
    alpn_protocols: ClassVar[list[str]] = ["http/1.1"]
    _start: bytes | None = None  # what has come while the connection may be either
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._start = b"" if self.http2_socket else None
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        if self._start is not None:
            self._start += data
            if may_be_http2(self._start):
                if len(self._start) >= len(PREFACE):
                    self._hand_on(self._start)
                return
            data, self._start = self._start, None
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

    def _hand_on(self, start: bytes) -> None:
        self._end_head()
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        handed_on = asyncio.create_task(HandedOn(self.transport, self.http2_socket, self.handed_on).begin(start))
        self.tasks.add(handed_on)
        handed_on.add_done_callback(self.tasks.discard)

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

    def __init__(self, app: Any, http2_socket: str = "", tls: ServerTls | None = None, **options: Any) -> None:
        """app: the ASGI application; options: uvicorn's beyond what all our servers share; http2_socket: path of the
        socket of a server that connections of HTTP/2 are handed on to; tls: its certificate, taken anew when renewed.
        """

        class Protocol(BoundedHead):
            pass

        self._handed_on: set[HandedOn] = set()

        if http2_socket:
            Protocol.handed_on = self._handed_on
            Protocol.http2_socket, Protocol.alpn_protocols = http2_socket, ["http/1.1", "h2"]
        config = uvicorn.Config(
            app,
            http=Protocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            **(tls.uvicorn_options() if tls else {}),
            **options,
        )
        super().__init__(config)
        self.up = asyncio.Event()
        self._tls = tls
        self._renewing: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def end_handed_on(self) -> None:
        """Close what was handed on, once the other server has ended."""
        for one in list(self._handed_on):
            one.abort()
        while self._handed_on:
            await asyncio.sleep(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self._tls and self.config.ssl:
            self._renewing = asyncio.create_task(keep_renewed(self._tls, self.config.ssl))
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more."""
        if self._renewing:
            self._renewing.cancel()
        await super().shutdown(sockets)


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
