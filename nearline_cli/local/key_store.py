"""Writes the file of API keys: new keys, and keys taken back."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from nearline.access.api_keys import ApiKey, is_api_key, make_key, read_keys, service_problem
from nearline.access.caller import Caller
from nearline.access.rights import Right
from nearline.errors import InvalidRequest, NotFound, SettingsError
from nearline.store.durable import write_durably

_MAX_NAME = 128
_HEAD = "# Keys of Nearline, made by `nearline keys`; only their hashes are stored.\n"


class KeyStore:
    """Keys in a file, for the commands that change it; services read it with `KeyFile`.

    Args:
        path: The file; an absent one has no keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self) -> dict[str, ApiKey]:
        """Returns the keys by id. Raises: SettingsError: the file cannot be read."""
        try:
            return read_keys(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"keys in {self._path} cannot be read: {error}; correct the file, or restore it"
            ) from error

    def create(
        self,
        tenant: str,
        rights: Mapping[str, Right],
        roles: Sequence[str] = (),
        expires: datetime | None = None,
    ) -> tuple[str, str]:
        """Makes a key and stores its hash.

        Returns: The key, which cannot be read again, and its id.
        Raises: InvalidRequest: a name is empty, long, or has control characters. SettingsError:
            the file cannot be read or written.
        """
        for name in (tenant, *roles, *rights):
            if not (name.isprintable() and name.strip() and len(name.encode()) <= _MAX_NAME):
                raise InvalidRequest(
                    f"{name!r} cannot be the name of a tenant, a role or a collection: 1 to "
                    f"{_MAX_NAME} bytes that can be printed"
                )
        key, key_id, digest = make_key()
        caller = Caller(tenant, tuple(sorted(roles)), rights, key_id)
        if problem := service_problem(caller):
            raise InvalidRequest(f"{problem}: --right service --tenant '*'", field="right")
        with self._locked():
            stored = ApiKey(digest, caller, expires.timestamp() if expires else None)
            self._write({**self.list(), key_id: stored})
        return key, key_id

    def revoke(self, key_id: str) -> str:
        """Takes a key back; services refuse it within two seconds.

        Args:
            key_id: The id; of a whole key, it is taken.
        Returns: The id.
        Raises: NotFound: there is no such key. SettingsError: see `create`.
        """
        if is_api_key(key_id):
            # Pasted whole; it is not shown again.
            key_id = key_id.split("_")[1]
        with self._locked():
            keys = self.list()
            if key_id not in keys:
                raise NotFound(
                    f"no key {key_id!r} in {self._path}; `nearline keys list` shows those there are"
                )
            del keys[key_id]
            self._write(keys)
        return key_id

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lets one process at a time change the file."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsError(
                f"{self._path.parent} cannot be written: {error.strerror}; choose another --file"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, keys: Mapping[str, ApiKey]) -> None:
        text = _HEAD + "".join(map(_table, keys.values()))
        try:
            write_durably(self._path, text.encode(), mode=0o600)
        except OSError as error:
            raise SettingsError(f"{self._path} cannot be written: {error.strerror}") from error


def _table(key: ApiKey) -> str:
    caller = key.caller
    rights = ", ".join(
        f"{_text(name)} = {_text(right.name.lower())}" for name, right in caller.rights.items()
    )
    lines = [
        f"id = {_text(caller.name)}",
        f"sha256 = {_text(key.sha256)}",
        f"tenant = {_text(caller.tenant)}",
        f"rights = {{ {rights} }}",
    ]
    if caller.roles:
        lines.append(f"roles = [{', '.join(map(_text, caller.roles))}]")
    if key.expires_s is not None:
        lines.append(f"expires = {datetime.fromtimestamp(key.expires_s, UTC).isoformat()}")
    return "\n[[key]]\n" + "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Returns a text as a basic string of TOML, whose escapes are those of JSON."""
    # JSON leaves DEL as it is, which TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
