"""Where a process may listen: beyond this machine only behind tokens, or certificates of callers, or told so."""

from __future__ import annotations

import ipaddress

from topics.errors import SettingsError
from topics.settings import Settings

LOOPBACK_NAMES = ("localhost",)


def check_listening(settings: Settings, setting: str, host: str) -> None:
    """Raises SettingsError where the address is reachable from elsewhere and nothing asks who calls."""
    doors = settings.doors
    if is_loopback(host) or doors.insecure_listen or doors.tokens_path or doors.tls_client_ca_path:
        return
    raise SettingsError(
        f"{setting} is {host!r}: whoever reaches it could read and write all spans. Set doors.tokens_path (`spanstream"
        " token new` makes the file), or doors.tls_client_ca_path, or doors.insecure_listen where only you reach it"
        " (--doors-insecure-listen)"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. A name other than localhost may be anybody's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK_NAMES
