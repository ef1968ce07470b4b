"""One canary being tried: requests are dealt to it, and what comes of them is told to the judge."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from nearline import contract as c
from nearline.errors import (
    Conflict,
    InvalidRequest,
    NearlineError,
    NotFound,
    Unauthenticated,
    Unsupported,
)
from retrieval.rollout.analysis import CanaryAnalysis
from retrieval.rollout.split import Requester, TrafficSplit, is_from_canary
from retrieval.search.collection import ServedCollection
from retrieval.snapshots.loaded import LoadedSnapshot

_R = TypeVar("_R")
# Answers of the canary in shadow that may be under way; requests beyond are not judged by.
_MOST_SHADOWS = 16
# Kinds of interactions that say more than a look.
CONVERSIONS = frozenset({"purchase", "buy", "order", "conversion"})
_CALLERS = (InvalidRequest, NotFound, Conflict, Unauthenticated, Unsupported)
_log = logging.getLogger(__name__)


class ShadowOverlap:
    """Sums up how alike the answers of two snapshots are.

    compared: Requests that both answered.
    """

    def __init__(self) -> None:
        self.compared = 0
        self._sum = 0.0

    @property
    def overlap(self) -> float:
        """Mean share of the ids served that the canary gave, too, 0..1; 1 where nothing was."""
        return self._sum / self.compared if self.compared else 1.0

    def add(self, served: object, canary: object) -> None:
        """Takes in the replies of both to one request."""
        ids = _ids(served)
        self.compared += 1
        self._sum += len(ids & _ids(canary)) / len(ids) if ids else 1.0


class Trial:
    """Deals requests to a canary that is loaded here.

    The judge is told of every request of either arm but those that fail through a fault of the
    caller's: it goes by how they were dealt.

    Args:
        split: How they are dealt.
        canary: What is tried.
        judge: Told what becomes of them.
    """

    def __init__(
        self, split: TrafficSplit, canary: LoadedSnapshot[ServedCollection], judge: CanaryAnalysis
    ) -> None:
        self.split = split
        self.judge = judge
        self.compared = ShadowOverlap()
        self._canary = canary
        self._shadowed = 0
        self._shadows: set[asyncio.Task[None]] = set()

    @property
    def canary(self) -> ServedCollection:
        """What is tried."""
        return self._canary.value

    async def answer(
        self,
        current: Callable[[], Awaitable[_R]],
        canary: Callable[[ServedCollection], Awaitable[_R]],
        asker: Requester,
    ) -> _R:
        """Answers a request from the arm that it is dealt to.

        Where the canary fails, the current snapshot answers: what is tried costs nobody an answer.

        Args:
            current: Answers from the current snapshot.
            canary: Answers from the snapshot that it is given.
            asker: Whom the request is for.
        Raises: whatever `current` raises.
        """
        unit = self.split.unit_of(asker)
        chosen = self.split.to_canary(unit)
        if self.split.shadow:
            return await self._in_shadow(unit, current, canary, chosen=chosen)
        start = time.perf_counter()
        if chosen:
            try:
                with self._canary as served:
                    reply = await canary(served)
            except Exception as error:
                return await self._instead(unit, start, error, current)
            self._tell(unit, start, canary=True)
            return reply
        try:
            reply = await current()
        except Exception as error:
            if _is_fault(error):
                self._tell(unit, start, canary=False, failed=True)
            raise
        self._tell(unit, start, canary=False)
        return reply

    def interacted(self, interactions: Sequence[c.Interaction]) -> None:
        """Takes in what was done with lists that were given during this trial."""
        for one in interactions:
            canary = is_from_canary(one.list_id, self.split.epoch)
            if canary is not None:
                unit = None
                if self.split.dealt_by_unit and (one.user_id or one.session_id):
                    unit = self.split.unit_of(Requester(one.user_id, one.session_id))
                converted = one.kind in CONVERSIONS
                self.judge.clicked(canary, one.list_id, converted=converted, unit=unit)

    def end(self) -> None:
        """Stops answers in shadow that are under way."""
        for task in self._shadows:
            task.cancel()

    async def _instead(
        self, unit: int, start: float, error: Exception, current: Callable[[], Awaitable[_R]]
    ) -> _R:
        """Has the current snapshot answer what the canary failed at."""
        try:
            reply = await current()
        except Exception:
            # What fails at both speaks against the canary only where it is the service's fault.
            if _is_fault(error):
                self._tell(unit, start, canary=True, failed=True)
            raise
        self._failed(unit, start, error)
        return reply

    async def _in_shadow(
        self,
        unit: int,
        current: Callable[[], Awaitable[_R]],
        canary: Callable[[ServedCollection], Awaitable[_R]],
        *,
        chosen: bool,
    ) -> _R:
        start = time.perf_counter()
        # Known before it is looked at how a request is dealt, so that it skews neither arm.
        counts = self._shadowed < _MOST_SHADOWS
        if not (counts and chosen):
            reply = await current()
            if counts:
                self._tell(unit, start, canary=False)
            return reply
        self._shadowed += 1
        try:
            reply = await current()
        except BaseException:
            self._shadowed -= 1
            raise
        task = asyncio.ensure_future(self._shadow(unit, canary, reply))
        self._shadows.add(task)
        task.add_done_callback(self._shadow_ended)
        return reply

    def _shadow_ended(self, task: asyncio.Task[None]) -> None:
        self._shadows.discard(task)
        self._shadowed -= 1

    async def _shadow(
        self, unit: int, canary: Callable[[ServedCollection], Awaitable[_R]], served: _R
    ) -> None:
        start = time.perf_counter()
        try:
            with self._canary as held:
                reply = await canary(held)
        except Exception as error:
            self._failed(unit, start, error)
            return
        self._tell(unit, start, canary=True)
        self.compared.add(served, reply)

    def _failed(self, unit: int, start: float, error: Exception) -> None:
        """Notes that the canary failed at what the current snapshot could answer."""
        self._tell(unit, start, canary=True, failed=True)
        ours = isinstance(error, NearlineError)
        _log.warning(
            "canary failed at a request; the current snapshot answered it",
            extra={
                "collection": self.split.collection,
                "error": type(error).__name__,
                "reason": error.message if isinstance(error, NearlineError) else repr(error),
            },
            exc_info=None if ours else error,
        )

    def _tell(self, unit: int, start: float, *, canary: bool, failed: bool = False) -> None:
        self.judge.request(canary, unit, time.perf_counter() - start, failed=failed)


class TrialRecall:
    """Has more of a canary's searches looked at, and tells its judge what came of them.

    Args:
        trials: By collection.
        usual: Share of searches that are looked at anyhow.
    """

    def __init__(self, trials: Mapping[str, Trial], usual: float) -> None:
        self._trials = trials
        self._usual = usual

    def share(self, served: ServedCollection, arm: c.Arm | None) -> float:
        """Returns the share of searches to do again exactly, 0..1."""
        trial = self._trials.get(served.name)
        if trial is None or arm is not c.Arm.CANARY:
            return self._usual
        return max(self._usual, trial.split.recall_sample)

    def tell(self, collection: str, arm: c.Arm | None, value: float) -> None:
        """Takes in the recall of a search, 0..1."""
        trial = self._trials.get(collection)
        if trial is not None and arm is not None:
            trial.judge.recall(arm is c.Arm.CANARY, value)


def _is_fault(error: Exception) -> bool:
    """Returns whether an error is the service's, and not the caller's."""
    return not isinstance(error, _CALLERS)


def _ids(reply: object) -> set[str]:
    if isinstance(reply, c.SearchReply):
        return {hit.id for result in reply.results for hit in result.hits}
    if isinstance(reply, c.RecommendReply):
        return {one.hit.id for one in reply.recommendations}
    return set()
