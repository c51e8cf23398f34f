"""What our processes and commands show when they ask one of the deployment's listeners, and how they check it."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from pydantic import SecretStr

from pipeline.doors.tls import client_context
from topics.settings import Settings
from topics.spans_by_trace import TENANT_HEADER


class Outgoing(NamedTuple):
    """headers: the token, where there is one; tls: for URLs with https."""

    headers: dict[str, str]
    tls: ssl.SSLContext

    @classmethod
    def of_peer(cls, settings: Settings) -> Outgoing:
        """Of a process of the deployment. Raises SettingsError for files that cannot be used."""
        return cls(_bearer(settings.doors.peer_token), client_context(settings))

    @classmethod
    def of_command(cls, settings: Settings) -> Outgoing:
        """Of a command. Raises SettingsError for files that cannot be used."""
        return cls(_bearer(settings.doors.token), client_context(settings))


def named(tenant: str, outgoing: Outgoing | None) -> dict[str, str]:
    """The headers of a request: whose spans it is about, where that is said, and the token."""
    return ({TENANT_HEADER: tenant} if tenant else {}) | (outgoing.headers if outgoing else {})


def _bearer(token: SecretStr) -> dict[str, str]:
    secret = token.get_secret_value()
    return {"Authorization": f"Bearer {secret}"} if secret else {}
