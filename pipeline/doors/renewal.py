"""Renewed certificates of listeners: new connections get them without a restart. What does not fit changes nothing."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import structlog

from pipeline import telemetry
from pipeline.doors.tls import ServerTls
from topics.errors import SettingsError

log = structlog.get_logger("doors")
WHAT = "certificate"


class Renewal:
    """Whether certificate and key of a listener were renewed since they were looked at last."""

    def __init__(self, tls: ServerTls) -> None:
        self.tls = tls
        self._seen = self._versions()

    def has_come(self) -> bool:
        """True once for each change to files that fit together; others are told by log and metric."""
        found = self._versions()
        if found == self._seen:
            return False
        self._seen = found
        try:
            self.tls.context()
        except SettingsError as error:
            telemetry.FILE_RELOADS.labels(file=WHAT, outcome="refused").inc()
            log.error("file_not_taken", file=self.tls.cert, what=WHAT, error=str(error), counts="the old one")
            return False
        telemetry.FILE_RELOADS.labels(file=WHAT, outcome="taken").inc()
        log.info("file_taken", file=self.tls.cert, what=WHAT)
        return True

    def look_again(self) -> None:
        """What came could not be used any more."""
        self._seen = []

    def _versions(self) -> list[tuple[int, ...]]:
        return [_version(Path(name)) for name in (self.tls.cert, self.tls.key)]


def _version(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


async def keep_renewed(tls: ServerTls, context: ssl.SSLContext) -> None:
    """Load what is renewed into the context of a listener, for ever."""
    renewal = Renewal(tls)
    while True:
        await asyncio.sleep(tls.look_every_s)
        if renewal.has_come():
            try:
                context.load_cert_chain(tls.cert, tls.key)
            except OSError:  # renewed once more just now
                renewal.look_again()


def grpc_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Of a gRPC server: each new connection gets the newest certificate. Raises SettingsError."""
    renewal = Renewal(tls)

    def current() -> grpc.ServerCertificateConfiguration:
        cert, key, client_ca = tls.contents()
        return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        try:
            return current() if renewal.has_come() else None
        except (OSError, SettingsError):  # renewed once more just now
            renewal.look_again()
            return None

    return grpc.dynamic_ssl_server_credentials(current(), renewed, require_client_authentication=bool(tls.client_ca))
