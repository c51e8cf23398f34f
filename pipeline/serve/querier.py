"""The querier process: HTTP in, answers from the store, the workers and Kafka."""

from __future__ import annotations

import asyncio
import os
import tempfile
from functools import partial

import structlog

from pipeline.allocator import release_memory, started
from pipeline.doors.door import Door
from pipeline.doors.listening import check_listening
from pipeline.doors.tls import server_tls
from pipeline.http_server import HttpServer, bind
from pipeline.query.questions import Questions, real_kafka
from pipeline.query.stored import CatalogStored
from pipeline.serve.answers import Answers
from pipeline.serve.app import make_app
from pipeline.serve.query_limits import QueryLimits
from pipeline.serve.streaming import GrpcApi
from topics.errors import SettingsError
from topics.settings import Settings

STOP_TIMEOUT_S = 10  # for questions under way
CLOSE_TIMEOUT_S = 3  # then for what they stand on
log = structlog.get_logger("querier")


class Querier:
    """One querier: start, then stop."""

    def __init__(self, settings: Settings, questions: Questions) -> None:
        self._settings = settings
        self._questions = questions
        self.http_port = self.grpc_port = 0

    async def start(self) -> None:
        """Listen. /ready says when everything is answered in full. Raises SettingsError when a port is taken."""
        querier = self._settings.querier
        check_listening(self._settings, "querier.host", querier.host)
        tls = server_tls(self._settings)
        listener = bind(querier.host, querier.http_port, "querier.http_port")
        self.http_port = listener.getsockname()[1]
        self._grpc = GrpcApi(
            Answers(self._questions, QueryLimits(self._questions, querier)), Door(self._settings), querier
        )
        self._folder = tempfile.TemporaryDirectory(prefix="spanstream-")  # nobody else may look into it
        socket_path = f"{self._folder.name}/grpc"
        try:
            await self._grpc.start(socket_path, tls)
        except RuntimeError as exc:
            listener.close()
            raise SettingsError(f"querier.grpc_port {querier.grpc_port} on {querier.host} is taken: {exc}") from exc
        self.grpc_port = self._grpc.port
        app = make_app(self._questions, self._settings)
        self._server = HttpServer(app, socket_path, tls, timeout_graceful_shutdown=STOP_TIMEOUT_S)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.up.wait()
        self._questions.start()
        log.info("listening", http_port=self.http_port, grpc_port=self.grpc_port)

    async def stop(self) -> None:
        """Give questions under way their answer, for a bounded time, then end.

        Raises TimeoutError where threads still wait for a store or a Kafka that hangs.
        """
        self._questions.end_tails()
        self._server.should_exit = True
        await asyncio.gather(self._grpc.stop(), self._serving)
        await self._server.end_handed_on()
        self._folder.cleanup()
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await self._questions.close()
        log.info("stopped")


async def answer_until(settings: Settings, stop: asyncio.Event) -> None:
    """Answer until `stop` is set."""
    release = partial(release_memory, above_bytes=settings.querier.resident_bytes_max)
    querier = Querier(settings, Questions(settings, CatalogStored(settings), real_kafka(settings), release))
    await querier.start()
    started()
    await stop.wait()
    try:
        await querier.stop()
    except TimeoutError:  # its threads would be waited for as long as they wait; nothing of theirs is needed again
        log.warning("stopped_without_waiting", waited_s=CLOSE_TIMEOUT_S)
        os._exit(0)
