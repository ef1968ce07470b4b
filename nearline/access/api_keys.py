"""API keys: made at random, shown once, and stored as hashes in a TOML file.

    [[key]]
    id = "k7q2mzt4"
    sha256 = "…"                       # of the whole key
    tenant = "shop"                    # "*" is an operator, who may name any tenant
    roles = ["staff"]                  # for readers_attribute
    rights = { products = "write", "*" = "read" }
    expires = 2027-11-27T00:00:00Z     # optional

Two keys of one tenant may be valid at once, so that clients change from one to the next.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nearline.access.caller import EVERY, Caller
from nearline.access.rights import Right
from nearline.errors import SettingsError, Unauthenticated
from nearline.watched_files import WatchedFiles, read_text

_PREFIX: Final = "nl_"
_ID = re.compile("[a-z2-7]{8}")
_KEY = re.compile(f"{_PREFIX}({_ID.pattern})_[A-Za-z0-9_-]{{43}}")
_SHA256 = re.compile("[0-9a-f]{64}")
_RIGHTS: Final = {right.name.lower(): right for right in Right if right is not Right.NONE}
_FIELDS: Final = frozenset({"id", "sha256", "tenant", "roles", "rights", "expires"})


class KeyExpired(Unauthenticated):
    """The key has expired. caller: Whose it was, for the audit log."""

    caller: Caller | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. expires_s: Unix time after which it is refused; None if never."""

    sha256: str
    caller: Caller
    expires_s: float | None


def make_key() -> tuple[str, str, str]:
    """Returns a new key, its id, and its hash; only the id and the hash are to be stored."""
    key_id = base64.b32encode(secrets.token_bytes(5)).decode().lower()
    key = f"{_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    return key, key_id, hash_key(key)


def hash_key(key: str) -> str:
    """Returns the SHA-256 of a key, in hexadecimal; a random key needs no slower hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_api_key(credential: str) -> bool:
    """Returns whether a credential has the form of an API key."""
    return credential.startswith(_PREFIX)


def read_keys(text: str) -> dict[str, ApiKey]:
    """Reads keys by id from TOML; see the module.

    Raises: ValueError: the text has another form; the message says where.
    """
    content = tomllib.loads(text)
    if unknown := sorted(set(content) - {"key"}):
        raise ValueError(f"unknown table {unknown[0]!r}; write [[key]]")
    keys: dict[str, ApiKey] = {}
    tables = content.get("key", [])
    if not isinstance(tables, list):
        raise ValueError("key must be a list of tables: [[key]]")
    for number, table in enumerate(tables, 1):
        where = f"key {number}"
        if unknown := sorted(set(table) - _FIELDS):
            raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {sorted(_FIELDS)}")
        key_id = table.get("id", "")
        if not (isinstance(key_id, str) and _ID.fullmatch(key_id)):
            raise ValueError(f"{where}: {key_id!r} is not the id of a key")
        if key_id in keys:
            raise ValueError(f"{where}: another key has id {key_id!r}")
        keys[key_id] = _stored_key(f"key {key_id}", key_id, table)
    return keys


def service_problem(caller: Caller) -> str:
    """Returns why a caller may not have the right of a service; empty if it may, or has it not."""
    is_service = caller.highest_right is Right.SERVICE
    if not is_service or (caller.tenant == EVERY and caller.right_in(EVERY) is Right.SERVICE):
        return ""
    return (
        f'the right service is that of Nearline\'s services, for tenant "{EVERY}" and all '
        "collections; give anybody else read, write or admin"
    )


def _stored_key(where: str, key_id: str, table: Mapping[str, object]) -> ApiKey:
    digest, tenant = table.get("sha256"), table.get("tenant")
    roles, rights = table.get("roles", []), table.get("rights")
    expires = table.get("expires")
    if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise ValueError(f"{where}: sha256 is not 64 hexadecimal digits in lower case")
    if not (isinstance(tenant, str) and tenant):
        raise ValueError(f'{where}: tenant is missing; name it, or write "{EVERY}" for an operator')
    if not (isinstance(roles, list) and all(isinstance(one, str) for one in roles)):
        raise ValueError(f"{where}: roles is not a list of names")
    if not (isinstance(rights, dict) and rights):
        raise ValueError(f'{where}: rights is missing; for example {{ "{EVERY}" = "read" }}')
    for collection, right in rights.items():
        if right not in _RIGHTS:
            raise ValueError(
                f"{where}: right {right!r} in {collection!r} is none of {', '.join(_RIGHTS)}"
            )
    if not (expires is None or isinstance(expires, datetime)):
        raise ValueError(f"{where}: expires is not a time such as 2027-11-27T00:00:00Z")
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    caller = Caller(
        name=key_id,
        key=key_id,
        tenant=tenant,
        roles=tuple(sorted(roles)),
        rights={collection: _RIGHTS[right] for collection, right in rights.items()},
    )
    if problem := service_problem(caller):
        raise ValueError(f"{where}: {problem}")
    return ApiKey(digest, caller, None if expires is None else expires.timestamp())


class KeyFile:
    """The keys of a file, read again when it changes: new keys at once, others within a second.

    A file that cannot be read any more leaves the keys as they were, and is logged; so keys are
    revoked by removing their table, not by removing the file.

    Args:
        path: The file; see the module.
        clock: Returns Unix time in seconds.
    Raises: SettingsError: it cannot be read, or has another form.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Keys that were verified, of these contents of the file: as many as the file has at most.
        self._known: dict[str, ApiKey] = {}
        self._known_of: dict[str, ApiKey] | None = None
        try:
            self._keys = WatchedFiles(
                [str(path)], lambda: read_keys(read_text(path)), "keys", clock
            )
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"keys in {path} cannot be read: {error}; make keys with `nearline keys create`"
            ) from error

    def identify(self, key: str) -> Caller:
        """Returns the caller of a key.

        Raises: Unauthenticated: the key is unknown, revoked, or has expired.
        """
        keys = self._keys.current()
        if keys is not self._known_of:
            self._known_of, self._known = keys, {}
        if (found := self._known.get(key)) is None:
            found = self._verify(key)
            self._known[key] = found
        if found.expires_s is not None and self._clock() >= found.expires_s:
            expired = KeyExpired(
                f"the API key {found.caller.name!r} has expired; ask the operator for a new one"
            )
            expired.caller = found.caller
            raise expired
        return found.caller

    def _verify(self, key: str) -> ApiKey:
        form = _KEY.fullmatch(key)
        if form and form[1] not in self._keys.contents:
            # A key that was made just now; looking at the file costs microseconds.
            self._keys.changed()
        found = self._keys.contents.get(form[1]) if form else None
        # Compared by hash, so the time it takes says nothing about the key.
        if found is None or not secrets.compare_digest(hash_key(key), found.sha256):
            raise Unauthenticated("the API key is unknown; ask the operator for a valid one")
        return found
