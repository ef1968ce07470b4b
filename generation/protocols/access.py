"""Identifies callers by token, and decides which items they may see."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from nearline.contract import Attributes, Filter
from nearline.errors import SettingsError, Unauthenticated
from nearline.filters import All, In

DEFAULT_TENANT = "default"
PUBLIC = "public"
_HEADER = "authorization"
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller. Tenant and roles are part of every storage key."""

    tenant: str = DEFAULT_TENANT
    roles: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """Owner of a conversation: callers with fewer roles cannot read it."""
        return "+".join(quote(one, safe="") for one in (self.tenant, *self.roles))

    @property
    def reads(self) -> tuple[str, ...]:
        """The caller's names as a reader; an item is visible if it lists one of them."""
        return (PUBLIC, f"tenant:{self.tenant}", *(f"role:{role}" for role in self.roles))


ANONYMOUS = Caller()


class AccessControl:
    """Identifies callers by token, and restricts what they see.

    Args:
        callers: Callers by the SHA-256 of their token, lower-case hex. If None, everybody may
            call, as `ANONYMOUS`.
        attribute: Attribute of items that lists their readers: "public", "tenant:NAME" and
            "role:NAME". Nobody may see an item without it. If empty, every caller sees every
            item.
    """

    def __init__(self, callers: Mapping[str, Caller] | None = None, attribute: str = "") -> None:
        self._callers = callers
        self._attribute = attribute

    @classmethod
    def load(cls, file: str, attribute: str) -> AccessControl:
        """Reads callers from TOML, `[[caller]]` with token_sha256, tenant and roles for each.

        Args:
            file: Path; if empty, everybody may call.
            attribute: See the class.
        Raises: SettingsError: the file cannot be read, or does not have this structure.
        """
        if not file:
            return cls(None, attribute)
        try:
            tables = tomllib.loads(Path(file).read_text("utf-8"))["caller"]
            callers = {str(each["token_sha256"]).lower(): _caller(each) for each in tables}
            if len(callers) != len(tables):
                raise ValueError("two callers have the same token_sha256")
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"callers in {file} cannot be read: {type(error).__name__} {error}; write a "
                'table [[caller]] with token_sha256 = "…", tenant = "…" and roles = ["…"] for each'
            ) from error
        return cls(callers, attribute)

    def caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Returns the caller of a request.

        Args:
            metadata: Metadata of the call, with "authorization: Bearer TOKEN".
        Raises: Unauthenticated: the token is missing or unknown.
        """
        if self._callers is None:
            return ANONYMOUS
        given = next((str(value) for key, value in metadata if key == _HEADER), "")
        if not given.lower().startswith(_SCHEME):
            raise Unauthenticated(
                "the call carries no token; send metadata authorization: Bearer TOKEN, or name it "
                "with --token or NEARLINE_TOKEN"
            )
        # Looked up by its hash, so the time it takes reveals nothing about the token.
        digest = hashlib.sha256(given[len(_SCHEME) :].strip().encode()).hexdigest()
        caller = self._callers.get(digest)
        if caller is None:
            raise Unauthenticated("the token is unknown; ask the operator for a valid one")
        return caller

    def narrow(self, condition: Filter | None, caller: Caller) -> Filter | None:
        """Returns a filter for items that both the question and the caller's rights allow."""
        if not self._attribute:
            return condition
        mine = In(self._attribute, caller.reads)
        return mine if condition is None else All(condition, mine)

    def sees(self, caller: Caller, attributes: Attributes) -> bool:
        """Returns whether a caller may see an item with these attributes."""
        if not self._attribute:
            return True
        readers = attributes.get(self._attribute)
        named = readers if isinstance(readers, list | tuple) else (readers,)
        return not set(caller.reads).isdisjoint(str(one) for one in named if one is not None)


def _caller(table: Mapping[str, object]) -> Caller:
    roles = table.get("roles", [])
    if not isinstance(roles, list) or not table["tenant"]:
        raise TypeError("tenant is a name and roles is a list")
    if not re.fullmatch("[0-9a-fA-F]{64}", str(table["token_sha256"])):
        raise ValueError("token_sha256 is not 64 hexadecimal digits")
    return Caller(str(table["tenant"]), tuple(sorted(map(str, roles))))
