"""Decides at the edge of a service who calls, and whether the call is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from nearline.access.api_keys import KeyFile, is_api_key
from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.caller_file import CallerFile
from nearline.access.delegation import DELEGATION_KEY, read_delegation
from nearline.access.rights import Right
from nearline.errors import PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    # It loads PyJWT and its cryptography, which most services do without.
    from nearline.access.web_tokens import TokenVerifier

_HEADER: Final = "authorization"
_SCHEME: Final = "bearer "


class AccessControl:
    """Identifies callers, and checks their rights.

    Args:
        keys: API keys. Optional.
        tokens: Verifies JSON Web Tokens. Optional.
        callers: Callers by tokens of any form. Optional; with none of the three, everybody may
            call, as `ANONYMOUS`.
    """

    def __init__(
        self,
        keys: KeyFile | None = None,
        tokens: TokenVerifier | None = None,
        callers: CallerFile | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._callers = callers
        # Whether a call must carry a credential.
        self.required = any(one is not None for one in (keys, tokens, callers))

    async def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Returns the caller of a request.

        A service that calls on behalf of somebody names them beside its own credential.

        Args:
            metadata: Metadata of the call, with "authorization: Bearer CREDENTIAL".
        Raises: Unauthenticated: the credential is missing, unknown or has expired.
        """
        if not self.required:
            return ANONYMOUS
        given = delegation = None
        for key, value in metadata:
            if key == _HEADER:
                given = str(value)
            elif key == DELEGATION_KEY:
                delegation = value
        if given is None or not given.lower().startswith(_SCHEME):
            raise Unauthenticated(
                "the call carries no credential; send metadata authorization: Bearer KEY, or set "
                "NEARLINE_TOKEN"
            )
        credential = given[len(_SCHEME) :].strip()
        if self._keys is not None and is_api_key(credential):
            caller = self._keys.identify(credential)
        else:
            caller = await self._verify(credential)
        if delegation is None:
            return caller
        if caller.highest_right is not Right.SERVICE:
            # Taken for itself, a worker with the key of an operator would write as an operator.
            raise PermissionDenied(
                f"{caller.name!r} calls on behalf of somebody, which needs the right 'service'; "
                "give services a key with --right service"
            )
        return read_delegation(delegation).through(caller)

    async def _verify(self, credential: str) -> Caller:
        if self._callers is not None:
            return self._callers.identify(credential)
        if self._tokens is not None:
            return await self._tokens.identify(credential)
        raise Unauthenticated("this service accepts API keys only; ask the operator for one")
