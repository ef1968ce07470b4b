"""Policies that are set by API: kept in the store, one set for each collection.

Layout: <store>/<collection>/policies/<number:010d>.json; only ever created, the highest counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from nearline.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NearlineError,
    SettingsError,
)
from nearline.store.json_records import RecordSeries
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import admin_pb2
from retrieval.recommend.policies import Policies
from retrieval.recommend.policy_file import parse_policies
from retrieval.snapshots.poller import Poller

MAX_BYTES = 256 << 10
_MAX_TEXT = 1_000
# About a damaged set.
_REMEDY = "set the policies again"
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
        self._known: dict[str, tuple[str, Policies]] = {}
        self._poller = Poller(self._poll, poll_s, "policies cannot be followed")

    def of(self, collection: str) -> Policies:
        """Returns the policies of a collection."""
        known = self._known.get(collection)
        return self._default if known is None else known[1]

    async def start(self) -> None:
        """Reads the sets in force, then follows them."""
        await self._poll()
        self._poller.start()

    async def close(self) -> None:
        """Stops following."""
        await self._poller.close()

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
        name, record = await asyncio.to_thread(
            self._write, check_collection(collection), toml, expected, who, why
        )
        self._known[collection] = name, policies
        return record

    async def _poll(self) -> None:
        for collection in self._names():
            try:
                await asyncio.to_thread(self._refresh, collection)
            except NearlineError as error:
                about = {"collection": collection, "reason": error.message}
                _log.warning("policies cannot be read", extra=about)

    def _refresh(self, collection: str) -> None:
        known = self._known.get(collection)
        newest = self._records(collection).newest(known[0] if known else "")
        if newest is not None:
            name, record = newest
            self._known[collection] = name, self._parse(record.toml)

    def _parse(self, toml: str) -> Policies:
        if not toml.strip():
            return self._default
        try:
            return parse_policies(toml, self._default)
        except SettingsError as error:
            raise InvalidRequest(error.message, field="toml") from error

    def _read(self, collection: str) -> admin_pb2.PolicySet:
        self._store.alias_in_force(collection)  # Raises NotFound, with the remedy.
        newest = self._records(collection).newest()
        return admin_pb2.PolicySet() if newest is None else newest[1]

    def _write(
        self, collection: str, toml: str, expected: int, who: str, why: str
    ) -> tuple[str, admin_pb2.PolicySet]:
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
        try:
            return self._records(collection).create(record.number, record), record
        except AlreadyExists as error:
            raise Conflict(
                f"the policies of {collection!r} were set at the same time; read them again"
            ) from error

    def _records(self, collection: str) -> RecordSeries[admin_pb2.PolicySet]:
        folder = f"{collection}/policies"
        return RecordSeries(self._store.files, folder, admin_pb2.PolicySet, _REMEDY)
