"""Where the settings say that our listeners are, and the settings by which a command may enter."""

from __future__ import annotations

from topics.settings import Settings

OUTGOING = ("doors.token", "doors.tls_ca_path", "doors.tls_cert_path", "doors.tls_key_path")


def querier_url(settings: Settings) -> str:
    """The querier."""
    return url_of(settings, settings.querier.host, settings.querier.http_port)


def receiver_url(settings: Settings) -> str:
    """OTLP/HTTP of the receiver."""
    return url_of(settings, settings.receiver.host, settings.receiver.http_port)


def url_of(settings: Settings, host: str, port: int) -> str:
    """The URL of one of our listeners."""
    from pipeline.doors.tls import scheme

    return f"{scheme(settings)}://{host}:{port}"
