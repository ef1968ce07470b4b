"""Which snapshots a change log still lets be promoted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from nearline.errors import NotReady
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import LogState
from retrieval.changelog.registry import ChangeLogs
from retrieval.changelog.start_position import start_position

_log = logging.getLogger(__name__)


async def make_promotion_check(
    store: Store, logs: ChangeLogs | None, collection: str
) -> Callable[[snapshot_pb2.Manifest], None]:
    """Returns what refuses a snapshot that the change log in force cannot be followed from.

    It takes any where the collection has no log, or the log does not answer: replicas look again
    before they serve.

    Returns: What raises SnapshotMismatch, with the remedy.
    Raises: SnapshotMismatch: Redis holds another log than the store names.
    """
    # Imported late: a router without shards of its own needs no pyarrow until it is asked.
    from retrieval.changelog.retention import log_lineage

    names = await asyncio.to_thread(log_lineage, store, collection)
    if logs is None or not names:
        return _accept
    try:
        state = await logs.log(collection).state()
    except NotReady as error:
        _log.warning(
            "snapshot not held against the change log",
            extra={"collection": collection, "reason": error.message},
        )
        return _accept
    return partial(_check, names, state)


def _accept(manifest: snapshot_pb2.Manifest) -> None:
    """Takes any."""


def _check(names: Sequence[str], state: LogState, manifest: snapshot_pb2.Manifest) -> None:
    start_position(manifest, names, state)
