"""Who asks, and whose spans it may see or write: what every request of every listener passes first.

A route says what it needs; the door says who calls, or raises. Without doors.tokens_path everybody may do everything,
and tenants are believed; with it a request carries a token, or is of a process of the same deployment.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pipeline.doors import tokens
from pipeline.doors.tenants import NO_TENANT, read_tenants, written_tenant
from pipeline.doors.watched import WatchedFile, watched
from topics.errors import ForbiddenError, SettingsError, SpanstreamError, UnauthenticatedError, UnknownTenantError
from topics.settings import Settings
from topics.spans_by_trace import TENANT_HEADER

AUTHORIZATION = "authorization"
_TENANT = TENANT_HEADER.lower()


class Need(Enum):
    """What a route asks of its caller."""

    NOTHING = "nothing: it tells nobody's data"
    WRITE = "write"
    READ = "read"
    PAGE = "page: what a browser opens before it can say whose data it is to show; read, and the tenants where known"
    ADMIN = "admin"
    PEER = "peer: only processes of this deployment, since it tells all tenants' spans"


@dataclass(frozen=True, slots=True)
class Caller:
    """tenants: whose spans the request is about, sorted; everything: it may see what is of all tenants together."""

    tenants: tuple[str, ...] = ()
    everything: bool = False

    @property
    def tenant(self) -> str:
        """The one of a writer."""
        (one,) = self.tenants
        return one


class Door:
    """The same for HTTP and gRPC: headers or metadata in, with lower-case names. Checks cost some microseconds."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for a tokens file that cannot be read, or where the peers' token is missing."""
        doors = settings.doors
        self._multitenancy = settings.receiver.multitenancy
        self._peer_token = doors.peer_token.get_secret_value()
        self._tokens: WatchedFile[tokens.Tokens] | None = None
        if doors.tokens_path:
            self._tokens = watched(Path(doors.tokens_path), "tokens", tokens.parsed)
            if not self._peer_token:
                raise SettingsError(
                    "doors.peer_token is empty, and doors.tokens_path is set: workers and queriers need a secret of"
                    " theirs to ask each other, the same in every process (SPANSTREAM_DOORS_PEER_TOKEN)"
                )

    def caller(self, headers: Mapping[str, str], need: Need) -> Caller:
        """Who calls. Raises UnauthenticatedError, ForbiddenError, UnknownTenantError."""
        if need is Need.NOTHING:
            return Caller()
        grant = self._grant(headers)
        scope = Need.READ if need is Need.PAGE else need
        if grant is not None and scope.value not in grant.scopes:
            raise ForbiddenError(f"the token may not do this: it needs the scope {scope.name.lower()}")
        everything = grant is None or ("admin" in grant.scopes and grant.all_tenants)
        if need in (Need.ADMIN, Need.PEER):
            if not everything:
                raise ForbiddenError("the token is for some tenants only: this tells of all together")
            return Caller((), everything)
        named = headers.get(_TENANT)
        if need is Need.PAGE and self._multitenancy and not named:
            named = _own_tenant(grant)
            if not named:
                return Caller((), everything)  # who shows data there asks for the tenants itself
        tenants = self._tenants(named, grant, need)
        for tenant in tenants:
            if grant is not None and not grant.is_for(tenant):
                raise ForbiddenError(f"the token is not for tenant {tenant}")
        return Caller(tuple(tenants), everything)

    def _tenants(self, named: str | None, grant: tokens.KeptToken | None, need: Need) -> list[str]:
        named = named or _own_tenant(grant)
        if need is Need.WRITE:
            return [written_tenant(named, multitenancy=self._multitenancy)]
        return read_tenants(named, multitenancy=self._multitenancy)

    def _grant(self, headers: Mapping[str, str]) -> tokens.KeptToken | None:
        """The caller's token; None for peers, and for everybody where there are no tokens."""
        if self._tokens is None:
            return None
        given = bearer_of(headers.get(AUTHORIZATION, ""))
        if not given:
            raise UnauthenticatedError("a token is needed: Authorization: Bearer ss_...")
        if hmac.compare_digest(given.encode(), self._peer_token.encode()):
            return None
        kept = tokens.found(self._tokens.value, given)
        if kept is None:
            raise UnauthenticatedError("the token is unknown or revoked")
        return kept


def _own_tenant(grant: tokens.KeptToken | None) -> str:
    """A token of one tenant names it; empty for any other."""
    return grant.tenants[0] if grant is not None and len(grant.tenants) == 1 and not grant.all_tenants else ""


def bearer_of(authorization: str) -> str:
    """The token of a header: Bearer, or Basic with it as the password, which browsers can ask for; empty without."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def refusal(error: SpanstreamError) -> tuple[int, dict[str, str]] | None:
    """(HTTP status, headers) of what a door raises, None for any other error."""
    if isinstance(error, UnauthenticatedError):
        return 401, {"www-authenticate": 'Basic realm="spanstream", charset="UTF-8"'}
    if isinstance(error, ForbiddenError):
        return 403, {}
    if isinstance(error, UnknownTenantError):
        return (401 if str(error) == NO_TENANT else 400), {}
    return None
