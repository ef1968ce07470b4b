"""How a service tells the next one on whose behalf it calls."""

from __future__ import annotations

import json
from typing import Final

from nearline.access.caller import Caller
from nearline.access.rights import Right
from nearline.errors import Unauthenticated

# gRPC carries the values of keys that end in "-bin" as bytes.
DELEGATION_KEY: Final = "nearline-caller-bin"
_MAX_BYTES = 16_384


def delegation_of(caller: Caller) -> tuple[str, bytes]:
    """Returns the metadata by which a service names the caller on whose behalf it calls."""
    record = {
        "name": caller.name,
        "tenant": caller.tenant,
        "roles": caller.roles,
        "rights": caller.rights,
    }
    return DELEGATION_KEY, json.dumps(record, separators=(",", ":")).encode()


def read_delegation(value: str | bytes) -> Caller:
    """Returns the caller that a service names.

    Raises: Unauthenticated: the value was not made by `delegation_of`.
    """
    try:
        if len(value) > _MAX_BYTES:
            raise ValueError(f"{len(value):,} bytes")
        record = json.loads(value)
        return Caller(
            name=str(record["name"]),
            tenant=str(record["tenant"]),
            roles=tuple(map(str, record["roles"])),
            rights={str(name): Right(right) for name, right in record["rights"].items()},
            through_service=True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unauthenticated(
            f"metadata {DELEGATION_KEY} cannot be read ({type(error).__name__}); only Nearline's "
            "services send it: check that they have the same version"
        ) from error
