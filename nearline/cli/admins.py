"""Who changes which snapshot answers: a router that is asked to, or this process, in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from nearline.clients import AdminClient
from nearline.errors import NotReady
from nearline.snapshot import Store
from nearline.v1 import admin_pb2, release_pb2, snapshot_pb2

_POLL_S = 0.2
_R = TypeVar("_R")


class RouterAdmin:
    """Asks a router; its calls are those of `AdminClient`, and block.

    Args:
        address: host:port of the router.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def aliases(self, collection: str) -> admin_pb2.GetAliasesResponse:
        """Reads the alias record in force."""
        return self._ask(lambda admin: admin.aliases(collection))

    def rollout_status(self, collection: str) -> admin_pb2.GetRolloutStatusResponse:
        """Tells how a trial does."""
        return self._ask(lambda admin: admin.rollout_status(collection))

    def promote(
        self,
        snapshot_id: str,
        collection: str,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
        gate: release_pb2.GateVerdict | None = None,
    ) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current; gives the new record."""
        return self._ask(
            lambda admin: admin.promote(
                snapshot_id, collection, expected_epoch=expected_epoch, who=who, why=why, gate=gate
            )
        )

    def split(
        self,
        canary: str,
        share: float = 0.0,
        collection: str = "",
        *,
        rollout: release_pb2.Rollout | None = None,
        gate: release_pb2.GateVerdict | None = None,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Has a snapshot tried beside the current one; an empty id ends that."""
        return self._ask(
            lambda admin: admin.split(
                canary,
                share,
                collection,
                rollout=rollout,
                gate=gate,
                expected_epoch=expected_epoch,
                who=who,
                why=why,
            )
        )

    def roll_back(
        self, collection: str, *, expected_epoch: int = 0, who: str = "", why: str = ""
    ) -> snapshot_pb2.AliasRecord:
        """Makes the snapshot before the current one current again."""
        return self._ask(
            lambda admin: admin.roll_back(
                collection, expected_epoch=expected_epoch, who=who, why=why
            )
        )

    def served(self, collection: str, record: snapshot_pb2.AliasRecord, wait_s: float) -> None:
        """Waits until the router serves a record; 0 s: does not.

        Raises: NotReady: it cannot get the snapshot ready, or not in time.
        """
        if wait_s:
            self._ask(lambda admin: _served(admin, collection, record, wait_s))

    def _ask(self, call: Callable[[AdminClient], Awaitable[_R]]) -> _R:
        async def ask() -> _R:
            async with AdminClient(self._address) as admin:
                return await call(admin)

        return asyncio.run(ask())


class StoreAdmin:
    """Does in a store what `RouterAdmin` asks for.

    Args:
        store: The store.
        redis: Holds the change log, which a snapshot has to be followed from; empty: it need not.
        verify: Read the files of what is promoted first.
    """

    def __init__(self, store: Store, redis: str = "", *, verify: bool = True) -> None:
        self._store = store
        self._redis = redis
        self._verify = verify

    def check(self, snapshot_id: str, collection: str) -> None:
        """Raises for a snapshot that the change log cannot be followed from."""
        self._check(collection)(self._store.manifest(collection, snapshot_id))

    def aliases(self, collection: str) -> admin_pb2.GetAliasesResponse:
        """Reads the alias record in force."""
        in_force = self._store.alias_in_force(collection)
        return admin_pb2.GetAliasesResponse(in_force=in_force)

    def promote(
        self,
        snapshot_id: str,
        collection: str,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
        gate: release_pb2.GateVerdict | None = None,
    ) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current; gives the new record."""
        from retrieval.life import aliases

        return aliases.promote(
            self._store,
            collection,
            snapshot_id,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
            verify=self._verify,
            check=self._check(collection),
            gate=gate,
        )

    def split(
        self,
        canary: str,
        share: float = 0.0,
        collection: str = "",
        *,
        rollout: release_pb2.Rollout | None = None,
        gate: release_pb2.GateVerdict | None = None,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Has a snapshot tried beside the current one; an empty id ends that."""
        from retrieval.life import aliases

        if not canary:
            return aliases.end_split(
                self._store, collection, expected_epoch=expected_epoch, who=who, why=why
            )
        return aliases.split(
            self._store,
            collection,
            canary,
            share,
            rollout=rollout,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
            check=self._check(collection),
            gate=gate,
        )

    def roll_back(
        self, collection: str, *, expected_epoch: int = 0, who: str = "", why: str = ""
    ) -> snapshot_pb2.AliasRecord:
        """Makes the snapshot before the current one current again."""
        from retrieval.life import aliases

        return aliases.roll_back(
            self._store,
            collection,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
            check=self._check(collection),
        )

    def served(self, collection: str, record: snapshot_pb2.AliasRecord, wait_s: float) -> None:
        """Does nothing: a store serves nobody."""

    def _check(self, collection: str) -> Callable[[snapshot_pb2.Manifest], None]:
        from retrieval.changes.logs import ChangeLogs
        from retrieval.changes.promoting import promotable
        from retrieval.life.aliases import who_am_i

        async def ask() -> Callable[[snapshot_pb2.Manifest], None]:
            logs = ChangeLogs(self._store, self._redis, who=who_am_i()) if self._redis else None
            try:
                return await promotable(self._store, logs, collection)
            finally:
                if logs is not None:
                    await logs.close()

        return asyncio.run(ask())


Admin: TypeAlias = RouterAdmin | StoreAdmin


def admin_of(router: str, store: str, redis: str = "", *, verify: bool = True) -> Admin:
    """Gives who changes the aliases.

    Args:
        router: host:port; it looks into a change log of its own, and reads files in any case.
            Empty: this process does, in the store.
        store: Folder or URL of the store.
        redis, verify: As in `StoreAdmin`.
    """
    if router:
        return RouterAdmin(router)
    return StoreAdmin(Store.open(store), redis, verify=verify)


async def _served(
    admin: AdminClient, collection: str, record: snapshot_pb2.AliasRecord, wait_s: float
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    since = f"{record.current} is current since epoch {record.epoch}, but {admin.address}"
    while True:
        for found in (await admin.serving_status()).collections:
            if found.collection != collection:
                continue
            if found.epoch >= record.epoch:
                return
            if found.newest_epoch == record.epoch and found.problem:
                raise NotReady(
                    f"{since} goes on serving {found.snapshot_id}: {found.problem}; mend it, or "
                    "roll back"
                )
        if loop.time() >= deadline:
            raise NotReady(
                f"{since} does not serve it after {wait_s:g} s; `nearline status` shows how far "
                "it is"
            )
        await asyncio.sleep(_POLL_S)
