"""Second names of collections: requests for such a name go to the collection that it points to.

Layout: <store>/_names/<number:010d>.json; only ever created, the highest counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from nearline.errors import AlreadyExists, Conflict, InvalidRequest, NearlineError
from nearline.store.json_records import RecordSeries
from nearline.store.snapshot import Store, check_collection
from nearline.v1 import admin_pb2
from retrieval.snapshots.poller import Poller

_FOLDER = "_names"
_MAX_NAMES = 1_000
_MAX_TEXT = 1_000
_log = logging.getLogger(__name__)


class CollectionNames:
    """The second names of a store's collections.

    Args:
        store: Holds them.
        poll_s: Seconds between two looks into the store.
    """

    def __init__(self, store: Store, poll_s: float) -> None:
        self._store = store
        self._records = RecordSeries(store.files, _FOLDER, admin_pb2.NameSet, "restore it")
        # Name of the record in force.
        self._newest = ""
        self._targets: Mapping[str, str] = {}
        self._poller = Poller(self._poll, poll_s, "names cannot be followed")

    def resolve(self, name: str) -> str:
        """Returns the collection of a name; a name that is no second one is returned as it is."""
        return self._targets.get(name, name)

    def of(self, collection: str) -> list[str]:
        """Returns the second names of a collection, alphabetically."""
        return sorted(name for name, target in self._targets.items() if target == collection)

    def check_free(self, name: str) -> None:
        """Raises AlreadyExists if a name is a second name."""
        target = self._targets.get(name)
        if target is not None:
            raise AlreadyExists(
                f"{name!r} is a second name of {target!r}; choose another name, or free it first: "
                f"nearline collections free {name}",
                field="collection",
            )

    async def start(self) -> None:
        """Reads the names, then follows them."""
        await asyncio.to_thread(self._refresh)
        self._poller.start()

    async def close(self) -> None:
        """Stops following."""
        await self._poller.close()

    async def point(self, name: str, target: str, *, who: str, why: str) -> None:
        """Lets a name point to a collection; this router follows at once.

        Args:
            name: A name that no collection has.
            target: The collection; empty frees the name.
            who, why: For the record.
        Raises: InvalidRequest: A collection has the name, or there are 1,000 already. NotFound: No
            such collection. Conflict: Names were changed at the same time.
        """
        await asyncio.to_thread(self._point, check_collection(name), target, who, why)

    async def forget(self, collection: str, *, who: str) -> None:
        """Frees the second names of a collection that was dropped."""
        for name in self.of(collection):
            await self.point(name, "", who=who, why=f"{collection} was dropped")

    async def _poll(self) -> None:
        try:
            await asyncio.to_thread(self._refresh)
        except NearlineError as error:
            _log.warning("names cannot be read", extra={"reason": error.message})

    def _point(self, name: str, target: str, who: str, why: str) -> None:
        self._refresh()
        targets = dict(self._targets)
        if not target:
            targets.pop(name, None)
        else:
            if name in self._store.collections():
                raise InvalidRequest(
                    f"{name!r} is a collection of its own; drop it first, or choose another name",
                    field="collection",
                )
            self._store.alias_in_force(check_collection(target))  # Raises NotFound.
            targets[name] = target
        if len(targets) > _MAX_NAMES:
            raise InvalidRequest(
                f"there are {_MAX_NAMES:,} second names, which is the most; free some",
                field="collection",
            )
        number = int(self._newest.partition(".")[0] or 0) + 1
        record = admin_pb2.NameSet(
            number=number, targets=targets, who=who[:_MAX_TEXT], why=why[:_MAX_TEXT]
        )
        record.create_time.GetCurrentTime()
        try:
            self._newest = self._records.create(number, record)
        except AlreadyExists as error:
            raise Conflict("names were changed at the same time; try again") from error
        self._targets = targets

    def _refresh(self) -> None:
        newest = self._records.newest(self._newest)
        if newest is not None:
            self._newest, record = newest
            self._targets = dict(record.targets)
