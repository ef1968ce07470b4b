"""Follows the interactions of all collections of a store, in a process that runs for long."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nearline.errors import NearlineError
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.redis_client.connection import Redis
from retrieval.trends.interaction_window import UNTRAINED, Trained
from retrieval.trends.trend_follower import Progress, TrendFollower
from retrieval.trends.trend_lists import newest_known_us

_ROUND_S = 1.0
# New collections and snapshots are looked for less often.
_STORE_S = 5.0
# The table of popularity that decays, by its days.
_DECAYED = re.compile(r"popularity_([0-9]+)d")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Followed:
    follower: TrendFollower
    log_id: str = ""
    snapshot_id: str = ""
    trained: Trained = UNTRAINED


class TrendUpkeep:
    """Publishes the trends of collections every second.

    Args:
        store: Says which collections there are, and what their models were trained on.
        client: Redis of users and sessions; must not retry commands automatically.
        names: Collections; empty: all.
        report: Receives the progress of each collection after each round.
    """

    def __init__(
        self,
        store: Store,
        client: Redis,
        names: Sequence[str],
        report: Callable[[str, Progress], None],
    ) -> None:
        self._store = store
        self._client = client
        self._names = names
        self._report = report
        self._followed: dict[str, _Followed] = {}

    async def run(self) -> None:
        """Runs forever; what fails is tried again."""
        read_s = -math.inf
        try:
            while True:
                if time.monotonic() >= read_s + _STORE_S:
                    await self._attempt("", self._read_store())
                    read_s = time.monotonic()
                for name, one in self._followed.items():
                    await self._attempt(name, self._advance(name, one))
                await asyncio.sleep(_ROUND_S)
        finally:
            for one in self._followed.values():
                await one.follower.close()

    async def _attempt(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except NearlineError as error:
            _log.warning("trends not counted", extra={"collection": name, "reason": error.message})
        except Exception:
            _log.exception("trends not counted", extra={"collection": name})

    async def _advance(self, name: str, one: _Followed) -> None:
        progress = await one.follower.advance(one.trained)
        if progress is not None:
            self._report(name, progress)

    async def _read_store(self) -> None:
        """Follows new collections, and no longer those that were dropped."""
        names = self._names or await asyncio.to_thread(self._store.collections)
        for name in {*names, *self._followed}:
            await self._attempt(name, self._follow(name))

    async def _follow(self, name: str) -> None:
        """Follows a collection by its current snapshot, or no longer."""
        current, log_id = await asyncio.to_thread(self._state, name)
        one = self._followed.get(name)
        if one is not None and (not current or (one.log_id and one.log_id != log_id)):
            # Dropped, and possibly created again.
            await self._followed.pop(name).follower.close()
            one = None
        if one is None and current:
            one = self._followed[name] = _Followed(TrendFollower(self._client, name))
        if one is not None:
            one.log_id = log_id
            if one.snapshot_id != current:
                manifest = await asyncio.to_thread(self._store.manifest, name, current)
                one.trained, one.snapshot_id = trained_counts(manifest), current

    def _state(self, name: str) -> tuple[str, str]:
        """Returns the current snapshot and the change log of a collection; empty if it has none."""
        alias, log = self._store.newest_alias_record(name), self._store.log_in_force(name)
        current = "" if alias is None or alias.dropped else alias.current
        return current, "" if log is None else log.log_id


def trained_counts(manifest: snapshot_pb2.Manifest) -> Trained:
    """Returns what the models of a snapshot counted."""
    if not manifest.HasField("behaviour"):
        return UNTRAINED
    card = manifest.behaviour
    decayed = _DECAYED.fullmatch(card.popularity_table)
    return Trained(
        newest_known_us(manifest),
        dict(card.kind_weights),
        float(decayed[1]) if decayed else math.inf,
    )
