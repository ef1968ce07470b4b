"""Changes the aliases of a collection: through a router, or directly in the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from nearline.clients.blocking import BlockingAdminClient
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2, release_pb2, snapshot_pb2
from retrieval.snapshots import aliases

_POLL_S = 0.2
_R = TypeVar("_R")


class AliasChange(NamedTuple):
    """Details of a change of the aliases.

    who, why: For the record. expected_epoch: Refuse unless this is the current epoch; 0 accepts
        any. gate: Verdict of the release gate, if it ran. verify: Whether to verify the files of
        the promoted snapshot first; a router always does.
    """

    who: str
    why: str
    expected_epoch: int = 0
    gate: release_pb2.GateVerdict | None = None
    verify: bool = True

    @property
    def claim(self) -> dict[str, Any]:
        """The arguments that every change takes."""
        return {"expected_epoch": self.expected_epoch, "who": self.who, "why": self.why}


class RouterAdmin:
    """Changes the aliases of a collection through a router; its calls block.

    Args:
        address: host:port of the router.
        collection: Name of the collection.
    """

    def __init__(self, address: str, collection: str) -> None:
        self._address = address
        self._collection = collection

    def check(self, snapshot_id: str) -> None:
        """Does nothing: the router checks its own change log when it promotes."""

    def in_force(self) -> snapshot_pb2.AliasRecord:
        """Returns the current alias record."""
        return self._ask(lambda admin: admin.aliases(self._collection)).in_force

    def rollout_status(self) -> admin_pb2.GetRolloutStatusResponse:
        """Returns the status of a rollout."""
        return self._ask(lambda admin: admin.rollout_status(self._collection))

    def promote(self, snapshot_id: str, change: AliasChange) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current; returns the new record."""
        gate, claim = change.gate, change.claim
        return self._ask(
            lambda admin: admin.promote(snapshot_id, self._collection, gate=gate, **claim)
        )

    def roll_back(self, change: AliasChange) -> snapshot_pb2.AliasRecord:
        """Makes the previous snapshot current again; returns the new record."""
        return self._ask(lambda admin: admin.roll_back(self._collection, **change.claim))

    def split(
        self, canary: str, share: float, rollout: release_pb2.Rollout, change: AliasChange
    ) -> snapshot_pb2.AliasRecord:
        """Starts the trial of a snapshot; returns the new record."""
        return self._ask(
            lambda admin: admin.split(
                canary,
                share,
                self._collection,
                rollout=rollout,
                gate=change.gate,
                **change.claim,
            )
        )

    def end_split(self, change: AliasChange) -> snapshot_pb2.AliasRecord:
        """Ends the trial; returns the new record."""
        return self._ask(
            lambda admin: admin.split(
                "", collection=self._collection, who=change.who, why=change.why
            )
        )

    def served(self, record: snapshot_pb2.AliasRecord, wait_s: float) -> None:
        """Waits until the router serves a record; 0 s does not wait.

        Raises:
            NotReady: The router cannot load the snapshot, or not in time.
        """
        if not wait_s:
            return
        deadline = time.monotonic() + wait_s
        since = f"{record.current} is current since epoch {record.epoch}, but {self._address}"
        with BlockingAdminClient(self._address) as admin:
            while not self._serves(admin, record, since):
                if time.monotonic() >= deadline:
                    raise NotReady(
                        f"{since} does not serve it after {wait_s:g} s; `nearline status` shows "
                        "the progress"
                    )
                time.sleep(_POLL_S)

    def _serves(
        self, admin: BlockingAdminClient, record: snapshot_pb2.AliasRecord, since: str
    ) -> bool:
        for found in admin.serving_status().collections:
            if found.collection == self._collection:
                if found.newest_epoch == record.epoch > found.epoch and found.problem:
                    raise NotReady(
                        f"{since} still serves {found.snapshot_id}: {found.problem}; fix it, or "
                        "roll back"
                    )
                return found.epoch >= record.epoch
        return False

    def _ask(self, call: Callable[[BlockingAdminClient], _R]) -> _R:
        with BlockingAdminClient(self._address) as admin:
            return call(admin)


class StoreAdmin:
    """Changes the aliases of a collection in a store.

    Args:
        store: The store.
        collection: Name of the collection.
        redis: Holds the change log, from which a snapshot must be followable. If empty, this is not
            checked.
    """

    def __init__(self, store: Store, collection: str, redis: str = "") -> None:
        self._store = store
        self._collection = collection
        self._redis = redis

    def check(self, snapshot_id: str) -> None:
        """Raises if the change log cannot be followed from the snapshot."""
        self._check(self._store.manifest(self._collection, snapshot_id))

    def in_force(self) -> snapshot_pb2.AliasRecord:
        """Returns the current alias record."""
        return self._store.alias_in_force(self._collection)

    def promote(self, snapshot_id: str, change: AliasChange) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current; returns the new record."""
        return aliases.promote(
            self._store,
            self._collection,
            snapshot_id,
            **change.claim,
            verify=change.verify,
            check=self._check,
            gate=change.gate,
        )

    def roll_back(self, change: AliasChange) -> snapshot_pb2.AliasRecord:
        """Makes the previous snapshot current again; returns the new record."""
        return aliases.roll_back(
            self._store,
            self._collection,
            **change.claim,
            check=self._check,
        )

    def split(
        self, canary: str, share: float, rollout: release_pb2.Rollout, change: AliasChange
    ) -> snapshot_pb2.AliasRecord:
        """Starts the trial of a snapshot; returns the new record."""
        return aliases.split(
            self._store,
            self._collection,
            canary,
            share,
            rollout=rollout,
            **change.claim,
            check=self._check,
            gate=change.gate,
        )

    def end_split(self, change: AliasChange) -> snapshot_pb2.AliasRecord:
        """Ends the trial; returns the new record."""
        return aliases.end_split(self._store, self._collection, who=change.who, why=change.why)

    def served(self, record: snapshot_pb2.AliasRecord, wait_s: float) -> None:
        """Does nothing: a store has no services."""

    @cached_property
    def _check(self) -> Callable[[snapshot_pb2.Manifest], None]:
        from retrieval.changelog.registry import ChangeLogs
        from retrieval.snapshots.promotable import make_promotion_check

        async def ask() -> Callable[[snapshot_pb2.Manifest], None]:
            logs = (
                ChangeLogs(self._store, self._redis, who=aliases.operator_name())
                if self._redis
                else None
            )
            try:
                return await make_promotion_check(self._store, logs, self._collection)
            finally:
                if logs is not None:
                    await logs.close()

        return asyncio.run(ask())


def open_admin(
    router: str, store: str, collection: str, redis: str = ""
) -> RouterAdmin | StoreAdmin:
    """Returns the admin of a router, or of the store if no router is named.

    Args:
        router: host:port. Optional.
        store: Folder or URL of the store.
        collection, redis: See `StoreAdmin`.
    """
    if router:
        return RouterAdmin(router, collection)
    return StoreAdmin(Store.open(store), collection, redis)
