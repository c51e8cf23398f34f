"""OTLP/gRPC: TraceService/Export on raw bytes, so that a message is parsed once."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pipeline import telemetry
from pipeline.doors.calls import add_port, metadata_of, options
from pipeline.doors.door import Need
from pipeline.doors.tls import ServerTls
from pipeline.receive.http import status_of
from pipeline.receive.ingest import Ingest
from pipeline.receive.request import Form
from topics.errors import SpanstreamError
from topics.settings import ReceiverSettings

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcReceiver:
    """The gRPC server: gzip, deflate and identity, as grpcio has them. `port` is set by start."""

    def __init__(self, ingest: Ingest, settings: ReceiverSettings, tls: ServerTls | None = None) -> None:
        self._ingest, self._settings, self._tls = ingest, settings, tls
        self.port = 0
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=settings.grpc_requests_max,
            options=options(settings.grpc_message_bytes_max, settings.idle_timeout_s),
        )
        handler = grpc.unary_unary_rpc_method_handler(self._export)  # no deserializer: raw bytes in and out
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))

    async def start(self) -> None:
        """Bind and serve. Raises RuntimeError when the port is taken."""
        self.port = add_port(self._server, f"{self._settings.host}:{self._settings.grpc_port}", self._tls)
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no further calls; those under way are given `grace_s`."""
        await self._server.stop(grace_s)

    async def _export(self, body: bytes, context: Any) -> bytes:
        try:
            tenant = self._ingest.door.caller(metadata_of(context), Need.WRITE).tenant
            with self._ingest.request_of(tenant) as share:
                share.add(len(body))
                response = await self._ingest.export(tenant, body, Form.PROTOBUF)
        except SpanstreamError as exc:
            await self._refuse(exc, context)
        telemetry.REQUESTS.labels(protocol="grpc", status="OK").inc()
        return response

    async def _refuse(self, error: SpanstreamError, context: Any) -> None:
        _, code, retry_after_s = status_of(error, self._settings.retry_after_s)
        telemetry.REQUESTS.labels(protocol="grpc", status=code_pb2.Code.Name(code)).inc()
        if retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(retry_after_s * 1000))
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            status = status_pb2.Status(code=code, message=str(error), details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(_CODES[code], str(error))
