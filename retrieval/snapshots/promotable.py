"""Checks that the change log can be followed from a snapshot before it is promoted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import LogState
from retrieval.changelog.registry import ChangeLogs
from retrieval.changelog.start_position import start_position

_log = logging.getLogger(__name__)


async def make_promotion_check(
    store: Store, logs: ChangeLogs | None, collection: str
) -> Callable[[snapshot_pb2.Manifest], None]:
    """Returns a check that rejects snapshots from which the change log cannot be followed.

    The check accepts every snapshot if the collection has no log or the log does not answer;
    replicas check again before they serve.

    Returns: A function that raises SnapshotMismatch with the remedy.
    Raises: SnapshotMismatch: Redis holds a different log than the store names.
    """
    # Imported late: a router without local shards needs pyarrow only here.
    from retrieval.changelog.retention import log_lineage

    names = await asyncio.to_thread(log_lineage, store, collection)
    if logs is None or not names:
        return _accept
    try:
        state = await logs.log(collection).state()
    except NotReady as error:
        _log.warning(
            "snapshot not checked against the change log",
            extra={"collection": collection, "reason": error.message},
        )
        return _accept
    return partial(_check, names, state)


def _accept(manifest: snapshot_pb2.Manifest) -> None:
    """Accepts every snapshot."""


def _check(names: Sequence[str], state: LogState, manifest: snapshot_pb2.Manifest) -> None:
    start_position(manifest, names, state)
