"""Policies that are set by API: kept in the store, one set for each collection.

Layout: <store>/<collection>/policies/<number:010d>.json; only ever created, the highest counts.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence

from google.protobuf import json_format

from nearline.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NearlineError,
    SettingsError,
    SnapshotCorrupt,
)
from nearline.store.snapshot import Store, check_collection, message_to_json
from nearline.v1 import admin_pb2
from retrieval.recommend.policies import Policies
from retrieval.recommend.policy_file import parse_policies

MAX_BYTES = 256 << 10
_MAX_TEXT = 1_000
_RECORD = re.compile(r"[0-9]{10}\.json")
_log = logging.getLogger(__name__)


class StoredPolicies:
    """The policies of each collection; a collection without its own has those of the router.

    Args:
        store: Holds the sets.
        default: The policies of the router: its file, or the built-in ones.
        names: Returns the names of the collections served.
        poll_s: Seconds between two looks into the store.
    """

    def __init__(
        self, store: Store, default: Policies, names: Callable[[], Sequence[str]], poll_s: float
    ) -> None:
        self._store = store
        self._default = default
        self._names = names
        self._poll_s = poll_s
        self._known: dict[str, tuple[str, Policies]] = {}
        self._task: asyncio.Task[None] | None = None

    def of(self, collection: str) -> Policies:
        """Returns the policies of a collection."""
        known = self._known.get(collection)
        return self._default if known is None else known[1]

    async def start(self) -> None:
        """Reads the sets in force, then follows them."""
        await self._poll()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stops following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def forget(self, collection: str) -> None:
        """Forgets the policies of a collection that was dropped."""
        self._known.pop(collection, None)

    async def read(self, collection: str) -> admin_pb2.PolicySet:
        """Returns the set in force; one with the number 0 if none was ever set.

        Raises: NotFound: no such collection.
        """
        return await asyncio.to_thread(self._read, check_collection(collection))

    async def write(
        self, collection: str, toml: str, *, expected: int, who: str, why: str
    ) -> admin_pb2.PolicySet:
        """Replaces the set of a collection; this router applies it at once.

        Args:
            toml: As in a policy file; empty: the policies of the router.
            expected: Required number of the set in force; 0 accepts any.
            who, why: For the record.
        Returns: The new set.
        Raises: InvalidRequest: names the key, the value and what is allowed. NotFound: no such
            collection. Conflict: another set is in force.
        """
        size = len(toml.encode())
        if size > MAX_BYTES:
            raise InvalidRequest(
                f"toml has {size:,} bytes; {MAX_BYTES:,} are allowed", field="toml"
            )
        policies = await asyncio.to_thread(self._parse, toml)
        record = await asyncio.to_thread(
            self._write, check_collection(collection), toml, expected, who, why
        )
        self._known[collection] = f"{record.number:010d}.json", policies
        return record

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._poll()
            except Exception:
                # The policies in force stay; the next look may succeed.
                _log.exception("policies cannot be followed")

    async def _poll(self) -> None:
        for collection in self._names():
            try:
                await asyncio.to_thread(self._refresh, collection)
            except NearlineError as error:
                about = {"collection": collection, "reason": error.message}
                _log.warning("policies cannot be read", extra=about)

    def _refresh(self, collection: str) -> None:
        known = self._known.get(collection)
        names = self._records(collection, known[0] if known else "")
        if names:
            record = self._load(collection, names[-1])
            self._known[collection] = names[-1], self._parse(record.toml)

    def _parse(self, toml: str) -> Policies:
        if not toml.strip():
            return self._default
        try:
            return parse_policies(toml, self._default)
        except SettingsError as error:
            raise InvalidRequest(error.message, field="toml") from error

    def _read(self, collection: str) -> admin_pb2.PolicySet:
        self._store.alias_in_force(collection)  # Raises NotFound, with the remedy.
        names = self._records(collection)
        return self._load(collection, names[-1]) if names else admin_pb2.PolicySet()

    def _write(
        self, collection: str, toml: str, expected: int, who: str, why: str
    ) -> admin_pb2.PolicySet:
        number = self._read(collection).number
        if expected and expected != number:
            raise Conflict(
                f"set {number} of policies is in force for {collection!r}, but {expected} was "
                "expected; read it and decide again"
            )
        record = admin_pb2.PolicySet(
            number=number + 1, toml=toml, who=who[:_MAX_TEXT], why=why[:_MAX_TEXT]
        )
        record.create_time.GetCurrentTime()
        path = f"{collection}/policies/{record.number:010d}.json"
        try:
            self._store.files.create(path, message_to_json(record).encode())
        except AlreadyExists as error:
            raise Conflict(
                f"the policies of {collection!r} were set at the same time; read them again"
            ) from error
        return record

    def _records(self, collection: str, after: str = "") -> list[str]:
        names = self._store.files.names(f"{collection}/policies", after)
        return [name for name in names if _RECORD.fullmatch(name)]

    def _load(self, collection: str, name: str) -> admin_pb2.PolicySet:
        path = f"{collection}/policies/{name}"
        record = admin_pb2.PolicySet()
        try:
            text = self._store.files.read(path).decode()
            json_format.Parse(text, record, ignore_unknown_fields=True)
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise SnapshotCorrupt(
                f"{self._store.url}/{path} cannot be read: {error}; set the policies again"
            ) from error
        return record
