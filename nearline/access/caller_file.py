"""Callers of Generation in a TOML file, by the hash of a token of any form.

    [[caller]]
    token_sha256 = "…"
    tenant = "shop"
    roles = ["staff"]

Older than API keys, which every service accepts; a caller of this file may only read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from nearline.access.api_keys import hash_key
from nearline.access.caller import EVERY, Caller
from nearline.access.rights import Right
from nearline.errors import SettingsError, Unauthenticated


class CallerFile:
    """Callers by the SHA-256 of their token, in lower-case hexadecimal."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers = callers

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads a file; see the module.

        Raises: SettingsError: the file cannot be read, or does not have this structure.
        """
        try:
            tables = tomllib.loads(file.read_text("utf-8"))["caller"]
            callers = {str(each["token_sha256"]).lower(): _caller(each) for each in tables}
            if len(callers) != len(tables):
                raise ValueError("two callers have the same token_sha256")
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"callers in {file} cannot be read: {type(error).__name__} {error}; write a "
                'table [[caller]] with token_sha256 = "…", tenant = "…" and roles = ["…"] for each'
            ) from error
        return cls(callers)

    def identify(self, token: str) -> Caller:
        """Returns the caller of a token. Raises: Unauthenticated: it is unknown."""
        # Looked up by its hash, so the time it takes reveals nothing about the token.
        caller = self._callers.get(hash_key(token))
        if caller is None:
            raise Unauthenticated("the token is unknown; ask the operator for a valid one")
        return caller


def _caller(table: Mapping[str, object]) -> Caller:
    roles, digest = table.get("roles", []), str(table["token_sha256"])
    if not isinstance(roles, list) or not table["tenant"]:
        raise TypeError("tenant is a name and roles is a list")
    if not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ValueError("token_sha256 is not 64 hexadecimal digits")
    return Caller(
        str(table["tenant"]),
        tuple(sorted(map(str, roles))),
        {EVERY: Right.READ},
        digest[:8].lower(),
    )
