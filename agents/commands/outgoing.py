"""Where the settings say that our listeners are, and the settings by which a command may enter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from topics.errors import BadQuestionError
from topics.settings import Settings

OUTGOING = ("doors.token", "doors.tls_ca_path", "doors.tls_cert_path", "doors.tls_key_path")


def chosen_url(given: Mapping[str, Any], option: str, otherwise: str) -> str:
    """What an option such as `otlp_url` names, else `otherwise`. Raises BadQuestionError for what cannot be asked."""
    url = given[option]
    if not url:
        return otherwise
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        flag = f"--{option.replace('_', '-')}"
        raise BadQuestionError(f"{flag} is {url!r}, must be a URL such as {otherwise}")
    return str(url).rstrip("/")


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
