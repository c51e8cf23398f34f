"""uvicorn as our processes run it, and the socket it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from topics.errors import SettingsError


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: who runs the process decides when it stops. `up` is set when it listens."""

    def __init__(self, app: Any, **options: Any) -> None:
        """app: the ASGI application; options: uvicorn's beyond what all our servers share."""
        config = uvicorn.Config(
            app,
            http="httptools",
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
