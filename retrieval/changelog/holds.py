"""Holds on a change log: it keeps the changes since a running build began.

Replicas that load the snapshot of the build replay them. Without a hold, compactions during a long
build would let the log be trimmed past its beginning, and the build would have been for nothing.

Layout: <store>/<collection>/holds/<seconds since 1970>-<token of the build>; the content is the
watermark. A build renews its hold, so that one that was killed holds the log for half an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from nearline.errors import InvalidRequest, NearlineError, NotFound
from nearline.store.snapshot import Store, check_collection
from retrieval.protocols.watermark import Watermark, decode_watermark

_RENEW_S = 300.0
_EXPIRE_S = 1_800.0
_NAME = re.compile(r"([0-9]{10})-([0-9a-f]{8})")
_log = logging.getLogger(__name__)


class _Hold(NamedTuple):
    """A hold: its file, the token of its build, and whether it no longer counts."""

    name: str
    token: str
    expired: bool


@contextlib.asynccontextmanager
async def held_log(store: Store, collection: str, watermark: Watermark) -> AsyncIterator[None]:
    """Keeps the changes after a watermark in the log for the duration of the block.

    Raises: StoreError.
    """
    token = secrets.token_hex(4)
    ended = asyncio.Event()

    async def renew() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _RENEW_S)
                return
            try:
                await asyncio.to_thread(_renew, store, collection, watermark, token)
            except NearlineError as error:
                _log.warning("hold on a change log not renewed", extra={"reason": error.message})

    await asyncio.to_thread(_renew, store, collection, watermark, token)
    renewal = asyncio.create_task(renew())
    try:
        yield
    finally:
        ended.set()
        await renewal
        await asyncio.to_thread(_release, store, collection, token)


def held_watermarks(store: Store, collection: str) -> list[Watermark]:
    """Returns after which positions running builds need the changes; blocks."""
    found = []
    for hold in _holds(store, collection):
        if hold.expired:
            continue
        # A build may end meanwhile; what cannot be read expires.
        with contextlib.suppress(NotFound, InvalidRequest):
            data = store.files.read(f"{_folder(collection)}/{hold.name}")
            if (watermark := decode_watermark(data, "hold")) is not None:
                found.append(watermark)
    return found


def _renew(store: Store, collection: str, watermark: Watermark, token: str) -> None:
    """Creates the hold as of now, and removes what it replaces, and the expired ones of others."""
    folder = _folder(collection)
    name = f"{int(time.time()):010d}-{token}"
    earlier = _holds(store, collection)
    if all(one.name != name for one in earlier):
        store.files.create(f"{folder}/{name}", watermark.encode())
    for one in earlier:
        if one.name != name and (one.token == token or one.expired):
            store.files.remove_file(f"{folder}/{one.name}")


def _release(store: Store, collection: str, token: str) -> None:
    for one in _holds(store, collection):
        if one.token == token:
            store.files.remove_file(f"{_folder(collection)}/{one.name}")


def _holds(store: Store, collection: str) -> list[_Hold]:
    now = time.time()
    matches = filter(None, map(_NAME.fullmatch, store.files.names(_folder(collection))))
    # A time in the future is that of a wrong clock.
    return [_Hold(one[0], one[2], abs(now - int(one[1])) > _EXPIRE_S) for one in matches]


def _folder(collection: str) -> str:
    return f"{check_collection(collection)}/holds"
