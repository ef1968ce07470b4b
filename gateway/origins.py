"""Which pages may call: those of the gateway's own name, and of the origins in its settings."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from gateway.request_context import has_credential
from gateway.settings import GatewaySettings
from nearline.errors import InvalidRequest, PermissionDenied
from nearline.tls import is_loopback

# Nobody can register a public name below these. Source: RFC 6762, RFC 9476, Kubernetes.
_PRIVATE_ENDS: Final = ("internal", "local", "svc")
# A page of another origin cannot send these without asking first. Source: the Fetch standard.
_CONTENT_TYPES: Final = ("application/json", "application/x-ndjson", "text/csv")


def check_origin(request: Request, settings: GatewaySettings) -> None:
    """Refuses pages of other origins, and names that others made stand for this machine.

    Source: the specification of MCP's transport, "Security Warning" (DNS rebinding).

    Raises: PermissionDenied: such a page sent the request. InvalidRequest: a page may have sent it,
        because it has neither a credential nor the content type of JSON.
    """
    origins, headers = settings.origins, request.headers
    if "*" not in origins:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not (host in {urlsplit(one).netloc for one in origins} or _is_own(host, settings)):
            raise PermissionDenied(
                f"the header Host is {host[:100]!r}, a name that a page may have made stand for "
                "this machine: call the gateway by its address, or start it with --allow-origins "
                f"https://{host[:100]} if this is its name",
                field="host",
            )
        if origin is not None and origin not in origins and origin.partition("//")[2] != host:
            raise PermissionDenied(
                f"pages of {origin[:100]!r} may not call; start the gateway with --allow-origins "
                f"{origin[:100]} to let them",
                field="origin",
            )
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and kind not in _CONTENT_TYPES and not has_credential(request):
        raise InvalidRequest(
            f"the header content-type is {kind[:100]!r}; send content-type: application/json (curl "
            f"does with --json instead of -d), or {', '.join(_CONTENT_TYPES[1:])} for lines",
            field="content-type",
        )


def _is_own(host: str, settings: GatewaySettings) -> bool:
    """Returns whether no page of somebody else can have this host."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if is_loopback(settings.host):
            return is_loopback(name)
        if settings.tls_cert or "." not in name or name.rpartition(".")[2] in _PRIVATE_ENDS:
            # Another name fails by the certificate, or is none of the public internet.
            return True
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False
