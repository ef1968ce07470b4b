"""JSON Web Tokens of an identity provider (OIDC), verified with its public keys."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

from nearline.access.caller import EVERY, Caller
from nearline.access.rights import Right
from nearline.errors import NotReady, SettingsError, Unauthenticated

# Never a symmetric algorithm, nor "none": a public key must not be taken for a shared secret.
ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "EdDSA",
)
_LEEWAY_S = 30.0
_REFRESH_S = 300.0
# An unknown key id may mean that the provider has changed its keys; asked for at most this often.
_MIN_REFRESH_S = 10.0
# Keys that cannot be read again for longer may have been withdrawn.
_MOST_AGE_S = 86_400.0
_MAX_TOKEN = 16_384
_MAX_JWKS_BYTES = 1 << 20
_FETCH_S = 5.0


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """Names of the claims that describe a caller; each may be a path such as "app.tenant".

    rights: A table from collection to right, or the name of one right for all collections.
    """

    tenant: str = "tenant"
    roles: str = "roles"
    rights: str = "rights"


class TokenVerifier:
    """Verifies tokens.

    Args:
        issuer: The provider; tokens of any other are refused.
        audience: The name of this deployment at the provider.
        keys: Where the provider's public keys are (JWKS): a path, or an https URL.
        claims: Where a token names tenant, roles and rights.
        read: Reads the keys; replaced in tests.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: str,
        claims: TokenClaims = TokenClaims(),
        read: Callable[[str], bytes] | None = None,
    ) -> None:
        for name, value in (("issuer", issuer), ("audience", audience), ("keys", keys)):
            if not value:
                raise SettingsError(f"tokens need --token-{name}; all three must be given")
        self._issuer = issuer
        self._audience = audience
        self._source = keys
        self._claims = claims
        self._read = read or _read_keys
        self._found: Mapping[str, jwt.PyJWK] = {}
        self._problem, self._read_at, self._found_at = "", -_REFRESH_S, -_MOST_AGE_S
        self._lock = asyncio.Lock()
        if not keys.startswith("https://"):
            try:
                _parse_keys(self._read(keys))
            except (OSError, ValueError, jwt.PyJWTError) as error:
                raise SettingsError(
                    f"the keys of tokens in {keys} cannot be read ({error}); correct --token-keys"
                ) from error

    async def identify(self, token: str) -> Caller:
        """Returns the caller of a token.

        Raises: Unauthenticated: it is unsigned, expired, or of another issuer or audience.
            NotReady: the provider's keys cannot be read.
        """
        if len(token) > _MAX_TOKEN:
            raise Unauthenticated(f"the token has more than {_MAX_TOKEN:,} characters")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError(f"algorithm {header.get('alg')!r} is not accepted")
            key = await self._key(str(header.get("kid", "")))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[str(header["alg"])],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, TypeError) as error:
            raise Unauthenticated(
                f"the token is refused ({type(error).__name__}: {error}); get a new one from "
                f"{self._issuer}"
            ) from error
        return self._caller(claims)

    async def _key(self, key_id: str) -> jwt.PyJWK:
        """Returns a key of the provider, reading them again if they are old or it is unknown."""
        asked_s = time.monotonic()
        least_s = _REFRESH_S if key_id in self._found else _MIN_REFRESH_S if self._found else 0.0
        if asked_s - self._read_at > least_s:
            async with self._lock:
                # All who waited for a read have its outcome.
                if self._read_at < asked_s:
                    await self._refresh()
        if time.monotonic() - self._found_at >= _MOST_AGE_S:
            raise NotReady(
                f"the keys of tokens at {self._source} cannot be read ({self._problem}); check "
                "--token-keys",
                retry_after_s=1.0,
            )
        found = self._found.get(key_id)
        if found is None:
            raise jwt.InvalidKeyError(f"its key {key_id!r} is not one of the provider's")
        return found

    async def _refresh(self) -> None:
        try:
            data = await asyncio.to_thread(self._read, self._source)
            self._found, self._found_at = _parse_keys(data), time.monotonic()
        except (OSError, ValueError, jwt.PyJWTError) as error:
            # The keys known so far stay valid: the provider may be away for a while.
            self._problem = str(error)
        self._read_at = time.monotonic()

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        names = self._claims
        tenant, roles = _at(claims, names.tenant), _at(claims, names.roles) or []
        rights = _at(claims, names.rights)
        if not (isinstance(tenant, str) and tenant):
            raise Unauthenticated(f"the token has no claim {names.tenant!r} with its tenant")
        if isinstance(rights, str):
            rights = {EVERY: rights}
        try:
            allowed = {str(name): Right[str(one).upper()] for name, one in rights.items()}
        except (AttributeError, KeyError) as error:
            raise Unauthenticated(
                f"the claim {names.rights!r} of the token is neither a right (read, write, admin) "
                "nor a table from collection to right"
            ) from error
        if Right.SERVICE in allowed.values() or tenant == EVERY:
            raise Unauthenticated(
                "a token can give neither the right of a service nor that of an operator of all "
                "tenants; use an API key"
            )
        return Caller(
            name=str(claims["sub"]),
            tenant=tenant,
            roles=tuple(sorted(map(str, roles if isinstance(roles, list) else [roles]))),
            rights=allowed,
        )


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """Returns the value at a path such as "app.tenant"; None if there is none."""
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _read_keys(source: str) -> bytes:
    if not source.startswith("https://"):
        return Path(source).read_bytes()
    from urllib import request

    # Without a handler of http, to which a redirect may lead.
    opener = request.OpenerDirector()
    for kind in (
        *(request.ProxyHandler, request.HTTPSHandler, request.HTTPRedirectHandler),
        *(request.HTTPErrorProcessor, request.HTTPDefaultErrorHandler, request.UnknownHandler),
    ):
        opener.add_handler(kind())
    with opener.open(source, timeout=_FETCH_S) as reply:
        return bytes(reply.read(_MAX_JWKS_BYTES + 1))


def _parse_keys(data: bytes) -> dict[str, jwt.PyJWK]:
    """Returns the keys of a JWKS by their id. Raises: ValueError: it is none."""
    if len(data) > _MAX_JWKS_BYTES:
        raise ValueError(f"more than {_MAX_JWKS_BYTES:,} bytes")
    found = {}
    try:
        for one in json.loads(data)["keys"]:
            # A provider may also list keys for encryption, or of kinds that we do not accept.
            if one.get("use", "sig") == "sig" and one.get("kty") in ("RSA", "EC", "OKP"):
                found[str(one.get("kid", ""))] = jwt.PyJWK(one)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no list of keys: {type(error).__name__}") from error
    if not found:
        raise ValueError("no key for signatures in it")
    return found
