"""The querier process: HTTP in, answers from the store, the workers and Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from pipeline.query.questions import Questions, real_kafka
from pipeline.query.stored import CatalogStored
from pipeline.serve.app import make_app
from topics.errors import SettingsError
from topics.settings import Settings

STOP_TIMEOUT_S = 10
log = structlog.get_logger("querier")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: who runs the querier decides when it stops. `up` is set when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Querier:
    """One querier: start, then stop."""

    def __init__(self, settings: Settings, questions: Questions) -> None:
        self._settings = settings
        self._questions = questions
        self.http_port = 0

    async def start(self) -> None:
        """Listen. /ready says when everything is answered in full. Raises SettingsError when the port is taken."""
        querier = self._settings.querier
        listener = _bind(querier.host, querier.http_port)
        self.http_port = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(self._questions, self._settings),
            http="httptools",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.up.wait()
        self._questions.start()
        log.info("listening", http_port=self.http_port)

    async def stop(self) -> None:
        """Give questions under way their answer, for a bounded time, then end."""
        self._server.should_exit = True
        await self._serving
        await self._questions.close()
        log.info("stopped")


async def answer_until(settings: Settings, stop: asyncio.Event) -> None:
    """Answer until `stop` is set."""
    querier = Querier(settings, Questions(settings, CatalogStored(settings), real_kafka(settings)))
    await querier.start()
    await stop.wait()
    await querier.stop()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise SettingsError(f"querier.http_port {port} on {host} is taken or not ours: {exc.strerror}") from exc
    listener.set_inheritable(True)
    return listener
