"""Whose spans a request is about: the tenants that `X-Scope-OrgID` names, one for a writer, several for a reader."""

from __future__ import annotations

from topics.errors import UnknownTenantError
from topics.spans_by_trace import DEFAULT_TENANT, TENANT_HEADER, is_tenant_name

NO_TENANT = "no org id"  # Tempo's words; clients look for them
TENANTS_MAX = 100  # of one read: each is asked for by its own


def written_tenant(named: str | None, *, multitenancy: bool) -> str:
    """The tenant that a writer's header (None: absent) stands for. Raises UnknownTenantError."""
    if not multitenancy:
        return DEFAULT_TENANT
    if not named:
        raise UnknownTenantError(NO_TENANT)
    return _checked(named)


def read_tenants(named: str | None, *, multitenancy: bool) -> list[str]:
    """The tenants that a reader asks for, sorted, each once: `a|b` names several. Raises UnknownTenantError."""
    if not multitenancy:
        return [DEFAULT_TENANT]
    if not named:
        raise UnknownTenantError(NO_TENANT)
    tenants = sorted({_checked(one) for one in named.split("|")})
    if len(tenants) > TENANTS_MAX:
        raise UnknownTenantError(f"{TENANT_HEADER} names {len(tenants)} tenants, at most {TENANTS_MAX} can be asked")
    return tenants


def _checked(name: str) -> str:
    if not is_tenant_name(name):
        raise UnknownTenantError(f"{TENANT_HEADER} is no tenant name: {name[:160]!a}")
    return name
