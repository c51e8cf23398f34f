"""A connection that speaks HTTP/2 from its first bytes is handed on to another server of this process: gRPC."""

from __future__ import annotations

import asyncio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def may_be_http2(start: bytes) -> bool:
    """Whether a connection that begins so may be HTTP/2."""
    return start.startswith(PREFACE) or PREFACE.startswith(start)


class HandedOn(asyncio.Protocol):
    """One end of a pipe: what comes goes to the other end, as fast as that takes it. `begin` makes the other end."""

    def __init__(self, transport: asyncio.Transport, socket_path: str, among: set[HandedOn]) -> None:
        """transport: of a connection, whose protocol this becomes; socket_path: where the other server listens;
        among: where this stands until the connection is closed.
        """
        self._transport, self._among = transport, among
        among.add(self)
        self._to: asyncio.Transport | None = None
        self._socket_path = socket_path
        transport.pause_reading()
        transport.set_protocol(self)

    async def begin(self, first: bytes) -> None:
        """Connect both ends, and pass on what has come already. The connection is closed where nobody listens."""
        try:
            loop = asyncio.get_running_loop()
            self._to, _ = await loop.create_unix_connection(lambda: _OtherEnd(self), self._socket_path)
        except OSError:
            self._transport.close()
            return
        if self._transport.is_closing():
            self._to.close()
            return
        self._to.write(first)
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close the connection without waiting for its client's goodbye."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._to is not None:
            self._to.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Close the other end as well."""
        self._among.discard(self)
        if self._to is not None:
            self._to.close()

    def pause_writing(self) -> None:
        """This end takes no more at the moment: the other end waits."""
        if self._to is not None:
            self._to.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._to is not None:
            self._to.resume_reading()


class _OtherEnd(asyncio.Protocol):
    """The end towards the other server."""

    def __init__(self, near: HandedOn) -> None:
        self._near = near._transport

    def data_received(self, data: bytes) -> None:
        self._near.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._near.close()

    def pause_writing(self) -> None:
        if not self._near.is_closing():
            self._near.pause_reading()

    def resume_writing(self) -> None:
        if not self._near.is_closing():
            self._near.resume_reading()
