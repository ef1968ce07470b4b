"""Ids of users, sessions and jobs by tenant: two tenants may use the same id for different ones."""

from __future__ import annotations

from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

from nearline.access.caller import Caller
from nearline.contract import DEFAULT_TENANT
from nearline.errors import InvalidRequest

_RESERVED: Final = "tenant/"
# Of a tenant in a stored id; its name comes from a credential.
_MAX_TENANT_CHARACTERS: Final = 1_024


def stored_id(caller: Caller, name: str, field: str) -> str:
    """Returns the id under which a caller's user or session is stored.

    The user "ann" of tenant "acme" is stored as "tenant/acme/ann", that of the default tenant or of
    an operator as "ann". An operator reaches the users of a tenant by the stored id.

    Args:
        name: The id in the request; empty if it names none.
        field: Field of the request, for errors.
    Raises: InvalidRequest: the id is one of another tenant.
    """
    if not name or caller.names_tenants:
        return name
    if caller.tenant != DEFAULT_TENANT:
        return f"{_prefix(caller)}{name}"
    _check_reserved(name, field)
    return name


def shown_id(caller: Caller, stored: str) -> str:
    """Returns the id that a caller knows, of a user or session that is stored."""
    return stored if caller.names_tenants else stored.removeprefix(_prefix(caller))


def name_of(stored: str) -> str:
    """Returns the id that a caller sent, of a user or session, whose length is limited."""
    tenant, _, name = stored.removeprefix(_RESERVED).partition("/")
    if stored.startswith(_RESERVED) and name and len(tenant) <= _MAX_TENANT_CHARACTERS:
        return name
    return stored


def tenant_of(stored: str) -> str:
    """Returns the tenant of a stored user or session; empty for an empty id."""
    if name_of(stored) == stored:
        return stored and DEFAULT_TENANT
    return unquote(stored.removeprefix(_RESERVED).partition("/")[0])


def stored_key(caller: Caller, key: str) -> str:
    """Returns the idempotency key under which a request is remembered, at most 128 bytes.

    Raises: InvalidRequest: the key is one of another tenant.
    """
    if not key or caller.names_tenants:
        return key
    if caller.tenant == DEFAULT_TENANT:
        _check_reserved(key, "idempotency_key")
        return key
    # A hash, since the key may be as long as is allowed.
    whole = f"{len(caller.tenant)}:{caller.tenant}{key}"
    return f"{_RESERVED}{sha256(whole.encode(errors='surrogatepass')).hexdigest()}"


def _check_reserved(name: str, field: str) -> None:
    if name.startswith(_RESERVED):
        raise InvalidRequest(
            f"{field} begins with {_RESERVED!r}, which is reserved; choose another", field=field
        )


def _prefix(caller: Caller) -> str:
    return f"{_RESERVED}{quote(caller.tenant, safe='')}/"
