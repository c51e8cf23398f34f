"""TLS of our listeners and between our processes: one certificate a process; mutual where a CA of callers is given."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from topics.errors import SettingsError
from topics.settings import DoorSettings, Settings


class ServerTls(NamedTuple):
    """The files of a listener; client_ca: whose certificates callers must show, empty for any caller.

    look_every_s: how often the files are looked at for renewed ones.
    """

    cert: str
    key: str
    client_ca: str
    look_every_s: float = 60.0

    def context(self) -> ssl.SSLContext:
        """For aiohttp. Raises SettingsError."""
        return _loaded(lambda: _server_context(self), self)

    def uvicorn_options(self) -> dict[str, Any]:
        """The same for uvicorn."""
        found: dict[str, Any] = {"ssl_certfile": self.cert, "ssl_keyfile": self.key}
        if self.client_ca:
            found |= {"ssl_ca_certs": self.client_ca, "ssl_cert_reqs": int(ssl.CERT_REQUIRED)}
        return found

    def contents(self) -> tuple[bytes, bytes, bytes | None]:
        """Certificate, key and CA of clients, for gRPC."""
        self.context()  # gRPC says nothing of what is wrong with a file
        ca = Path(self.client_ca).read_bytes() if self.client_ca else None
        return Path(self.cert).read_bytes(), Path(self.key).read_bytes(), ca


def server_tls(settings: Settings) -> ServerTls | None:
    """What our listeners use, None for plain text. Raises SettingsError for files that do not fit together."""
    doors = settings.doors
    if not doors.tls_cert_path and not doors.tls_key_path:
        if doors.tls_client_ca_path:
            raise SettingsError("doors.tls_client_ca_path is set, and doors.tls_cert_path and tls_key_path are not")
        return None
    if not doors.tls_cert_path or not doors.tls_key_path:
        raise SettingsError("doors.tls_cert_path and doors.tls_key_path go together: one of them is empty")
    found = ServerTls(doors.tls_cert_path, doors.tls_key_path, doors.tls_client_ca_path, doors.tls_look_every_s)
    found.context()
    return found


def scheme(settings: Settings) -> str:
    """How the listeners of this deployment are spoken to."""
    return "https" if settings.doors.tls_cert_path else "http"


def client_context(settings: Settings) -> ssl.SSLContext:
    """How our processes and commands check a listener, and what they show it. Raises SettingsError."""
    doors = settings.doors
    return _loaded(lambda: _client_context(doors), doors)


def _client_context(doors: DoorSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=doors.tls_ca_path or None)
    if doors.tls_cert_path and doors.tls_key_path:
        context.load_cert_chain(doors.tls_cert_path, doors.tls_key_path)
    return context


def _server_context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key)
    if tls.client_ca:
        context.load_verify_locations(cafile=tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _loaded(load: Callable[[], ssl.SSLContext], given: ServerTls | DoorSettings) -> ssl.SSLContext:
    """The context; its files are named where one cannot be used."""
    try:
        return load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        named = {name: path for name, path in _files(given).items() if path}
        unread = {name: path for name, path in named.items() if not Path(path).is_file()}
        told = ", ".join(f"doors.{name} {path}" for name, path in (unread or named).items())
        why = "is no file" if unread else f"cannot be used: {getattr(error, 'reason', None) or error}"
        raise SettingsError(f"TLS: {told} {why}") from error


def _files(given: ServerTls | DoorSettings) -> dict[str, str]:
    """By the names of their settings."""
    if isinstance(given, ServerTls):
        return {"tls_cert_path": given.cert, "tls_key_path": given.key, "tls_client_ca_path": given.client_ca}
    return {name: getattr(given, name) for name in ("tls_ca_path", "tls_cert_path", "tls_key_path")}
