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
    NotReady,
    SettingsError,
)
from nearline.store.json_records import RecordSeries
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import admin_pb2, release_pb2, snapshot_pb2
from retrieval.protocols.compute_threads import read_store
from retrieval.recommend.policies import Policies
from retrieval.recommend.policy_file import parse_policies
from retrieval.snapshots import aliases
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
        self._tried: dict[str, tuple[str, Policies]] = {}
        self._poller = Poller(self._poll, poll_s, "policies cannot be followed")

    def of(self, collection: str, variant: str = "") -> Policies:
        """Returns the policies of a collection; see `PolicySource`."""
        tried, policies = self._tried.get(collection, ("", self._default))
        if variant and variant == tried:
            return policies
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
        self._tried.pop(collection, None)

    def try_out(self, collection: str, rollout: release_pb2.Rollout) -> None:
        """Reads the policies of a rollout before its trial begins. Raises: InvalidRequest."""
        self._tried[collection] = rollout.rollout_id, self.parse(rollout.policies)

    async def promote(
        self, collection: str, tried: snapshot_pb2.AliasRecord, *, who: str, why: str
    ) -> snapshot_pb2.AliasRecord:
        """Ends the trial and makes its policies the newest set; returns the new record.

        In this order: policies of a trial that was backed out meanwhile are not set.
        Raises: Conflict: the trial has ended. InvalidRequest: this router cannot read the policies.
            NotReady: the trial has ended now, but its policies could not be set.
        """
        epoch, toml = tried.epoch, tried.rollout.policies
        policies = await asyncio.to_thread(self.parse, toml)
        record = await asyncio.to_thread(
            aliases.end_split, self._store, collection, expected_epoch=epoch, who=who, why=why
        )
        try:
            name, _ = await asyncio.to_thread(self._write, collection, toml, 0, who, why)
        except NearlineError as error:
            raise NotReady(
                f"the trial has ended, but its policies are not in force: {error.message}; set "
                "them with nearline policies set FILE"
            ) from error
        self._known[collection] = name, policies
        return record

    async def read(self, collection: str) -> admin_pb2.PolicySet:
        """Returns the set in force; one with the number 0 if none was ever set.

        Raises: NotFound: no such collection.
        """
        return await read_store(self._read, check_collection(collection))

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
            collection. Conflict: another set is in force, or others are on trial.
        """
        policies = await asyncio.to_thread(self.parse, toml)
        in_force = await asyncio.to_thread(self._store.newest_alias_record, collection)
        if in_force and in_force.rollout.policies:
            raise Conflict("other policies are on trial; promote or abort them first")
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
            self._known[collection] = name, self.parse(record.toml)

    def parse(self, toml: str) -> Policies:
        """Returns the policies of a text. Raises: InvalidRequest: see `write`."""
        size = len(toml.encode())
        if size > MAX_BYTES:
            raise InvalidRequest(
                f"toml has {size:,} bytes; {MAX_BYTES:,} are allowed", field="toml"
            )
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
