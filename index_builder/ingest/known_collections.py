"""Refuses submissions to collections that do not exist, before anything is queued."""

from __future__ import annotations

import asyncio
import difflib
import logging
import time

from nearline.clients import AdminClient
from nearline.errors import NearlineError, NotFound

_log = logging.getLogger(__name__)
_REMEMBERED_S = 10.0
_REMEMBERED = 1_000
# The queue accepts documents while no router answers, and must not be slowed down by it.
_TIMEOUT_S = 1.0
_AWAY_S = 5.0
_NAMES_SHOWN = 5


class KnownCollections:
    """Asks a router which collections exist, and remembers them for ten seconds.

    While the router does not answer, every collection counts as known: workers find out later.

    Args:
        admin: Client of the router.
    """

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._known_until: dict[str, float] = {}
        self._away_until = 0.0

    async def check(self, collection: str) -> None:
        """Raises NotFound, with similar names, if a collection does not exist."""
        now = time.monotonic()
        if now < self._away_until or now < self._known_until.get(collection, 0.0):
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._admin.collection(collection)
        except NotFound:
            raise await self._unknown(collection) from None
        except (NearlineError, TimeoutError) as error:
            self._away_until = time.monotonic() + _AWAY_S
            reason = error.message if isinstance(error, NearlineError) else "no answer in time"
            _log.warning("collections are not checked", extra={"reason": reason})
            return
        if len(self._known_until) >= _REMEMBERED:
            self._known_until.clear()
        self._known_until[collection] = now + _REMEMBERED_S

    async def _unknown(self, collection: str) -> NotFound:
        near: list[str] = []
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                served = (await self._admin.serving_status()).collections
            names = [one.collection for one in served]
            near = difflib.get_close_matches(collection, names, _NAMES_SHOWN, 0.0)
        except (NearlineError, TimeoutError):
            # The error is right without them.
            pass
        named = f"the closest names are: {', '.join(map(repr, near))}; " if near else ""
        return NotFound(
            f"collection {collection!r} does not exist, so nothing was queued; {named}name another "
            f"one, or create it: nearline collections create {collection}",
            field="collection",
        )
