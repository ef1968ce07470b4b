"""One canary on trial: splits requests and reports the outcomes to the analysis."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from typing import TypeVar

from nearline import contract as c
from nearline.access.tenant_ids import tenant_of
from nearline.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NearlineError,
    NotApplied,
    NotFound,
    Unauthenticated,
    Unsupported,
)
from retrieval.rollout.analysis import CanaryAnalysis
from retrieval.rollout.split import Requester, TrafficSplit
from retrieval.search.collection import ServedCollection
from retrieval.snapshots.loaded_snapshots import LoadedSnapshot

_R = TypeVar("_R")
# Maximum number of concurrent shadow answers of the canary; further requests are excluded from both
# arms.
_MAX_SHADOWS = 16
# Kinds of interactions that count as conversions.
CONVERSIONS = frozenset({"purchase", "buy", "order", "conversion"})
# Also what a caller brings about by a short deadline, or by a watermark of its own making: replies
# name the arm, so that a caller can choose it.
_CALLER_ERRORS = (
    InvalidRequest,
    NotFound,
    Conflict,
    Unauthenticated,
    Unsupported,
    NotApplied,
    DeadlineExceeded,
)
_log = logging.getLogger(__name__)


class ShadowOverlap:
    """Mean overlap of the answers of two snapshots.

    requests: Requests that both snapshots answered.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._sum = 0.0

    @property
    def mean(self) -> float:
        """Mean share of served ids that the canary also returned, 0..1; 1 without any request."""
        return self._sum / self.requests if self.requests else 1.0

    def add(self, served: object, canary: object) -> None:
        """Adds the replies of both snapshots to one request."""
        ids = _ids(served)
        self.requests += 1
        self._sum += len(ids & _ids(canary)) / len(ids) if ids else 1.0


class Trial:
    """Splits requests between the current snapshot and a canary that is loaded here.

    The analysis gets every assignment, and every outcome except faults of the caller, because its
    tests rely on the assignment of requests.

    Args:
        split: The traffic split.
        canary: The canary.
        analysis: Records the outcomes of requests.
    """

    def __init__(
        self,
        split: TrafficSplit,
        canary: LoadedSnapshot[ServedCollection],
        analysis: CanaryAnalysis,
    ) -> None:
        self.split = split
        self.analysis = analysis
        self.overlap = ShadowOverlap()
        self._canary = canary
        self._shadow_count = 0
        self._shadows: set[asyncio.Task[None]] = set()

    @property
    def canary(self) -> ServedCollection:
        """The canary."""
        return self._canary.value

    def covers(self, surface: str) -> bool:
        """Returns whether requests are assigned: lists of a surface, or, if empty, searches."""
        return bool(surface) or not self.split.variant

    def is_canary(self, served: ServedCollection) -> bool:
        """Returns whether a request was answered as the canary."""
        split = self.split
        return served.snapshot_id == split.canary and served.variant == split.variant

    async def answer(
        self,
        current: Callable[[], Awaitable[_R]],
        canary: Callable[[ServedCollection], Awaitable[_R]],
        requester: Requester,
    ) -> _R:
        """Answers a request from the arm it is assigned to.

        If the canary fails, the current snapshot answers, so that no caller loses an answer.

        Args:
            current: Answers from the current snapshot.
            canary: Answers from the snapshot passed to it.
            requester: User and session of the request.
        Raises: Any error of `current`.
        """
        unit = self.split.unit_of(requester)
        chosen = self.split.to_canary(unit)
        if self.split.shadow:
            return await self._in_shadow(unit, current, canary, chosen=chosen)
        tenant = tenant_of(requester.user or requester.session)
        self.analysis.record_assignment(chosen, unit, tenant)
        start = time.perf_counter()
        if chosen:
            try:
                with self._canary as served:
                    reply = await canary(self._vary(served))
            except asyncio.CancelledError:
                # An arm that hangs is slow. It has not failed: callers can give up when they like.
                self._record(unit, start, canary=True)
                raise
            except Exception as error:
                return await self._fall_back(unit, start, error, current)
            self._record(unit, start, canary=True)
            return reply
        try:
            reply = await current()
        except asyncio.CancelledError:
            self._record(unit, start, canary=False)
            raise
        except Exception as error:
            if _is_service_fault(error):
                self._record(unit, start, canary=False, failed=True)
            raise
        self._record(unit, start, canary=False)
        return reply

    def record_interactions(self, interactions: Sequence[c.Interaction]) -> None:
        """Records interactions with lists that were returned during this trial."""
        for one in interactions:
            canary = self.split.is_from_canary(one.list_id)
            if canary is not None:
                user = self.split.visitor_of(Requester(one.user_id, one.session_id))
                tenant = tenant_of(one.user_id or one.session_id)
                bought = one.kind in CONVERSIONS
                self.analysis.record_click(canary, one.list_id, user, tenant, converted=bought)

    def end(self) -> None:
        """Cancels running shadow answers."""
        for task in self._shadows:
            task.cancel()

    def _vary(self, served: ServedCollection) -> ServedCollection:
        if self.split.variant:
            served = copy(served)
            served.variant = self.split.variant
        return served

    async def _fall_back(
        self, unit: int, start: float, error: Exception, current: Callable[[], Awaitable[_R]]
    ) -> _R:
        """Answers from the current snapshot after the canary failed."""
        try:
            reply = await current()
        except Exception:
            # If both snapshots fail, this counts against the canary only if it is a fault of the
            # service.
            if _is_service_fault(error):
                self._record(unit, start, canary=True, failed=True)
            raise
        self._record_failure(unit, start, error)
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
        # Decided before the assignment is used, so that it skews neither arm.
        counts = self._shadow_count < _MAX_SHADOWS
        if counts:
            self.analysis.record_assignment(chosen, unit)
        if not (counts and chosen):
            reply = await current()
            if counts:
                self._record(unit, start, canary=False)
            return reply
        self._shadow_count += 1
        try:
            reply = await current()
        except BaseException:
            self._shadow_count -= 1
            raise
        task = asyncio.ensure_future(self._shadow(unit, canary, reply))
        self._shadows.add(task)
        task.add_done_callback(self._shadow_ended)
        return reply

    def _shadow_ended(self, task: asyncio.Task[None]) -> None:
        self._shadows.discard(task)
        self._shadow_count -= 1

    async def _shadow(
        self, unit: int, canary: Callable[[ServedCollection], Awaitable[_R]], served: _R
    ) -> None:
        start = time.perf_counter()
        try:
            with self._canary as held:
                reply = await canary(self._vary(held))
        except Exception as error:
            self._record_failure(unit, start, error)
            return
        self._record(unit, start, canary=True)
        self.overlap.add(served, reply)

    def _record_failure(self, unit: int, start: float, error: Exception) -> None:
        """Records that the canary failed at a request that the current snapshot answered."""
        self._record(unit, start, canary=True, failed=True)
        ours = isinstance(error, NearlineError)
        _log.warning(
            "canary failed a request; the current snapshot answered it",
            extra={
                "collection": self.split.collection,
                "error": type(error).__name__,
                "reason": error.message if isinstance(error, NearlineError) else repr(error),
            },
            exc_info=None if ours else error,
        )

    def _record(self, unit: int, start: float, *, canary: bool, failed: bool = False) -> None:
        self.analysis.record_outcome(canary, unit, time.perf_counter() - start, failed=failed)


class TrialRecall:
    """Connects the recall monitor with trials: samples a canary's searches and records recall.

    Args:
        trials: Trials by collection.
        default_share: Share of searches to sample outside of trials, 0..1.
    """

    def __init__(self, trials: Mapping[str, Trial], default_share: float) -> None:
        self._trials = trials
        self._default_share = default_share

    def share(self, served: ServedCollection, arm: c.Arm | None) -> float:
        """Returns the share of searches to rerun exactly, 0..1."""
        trial = self._trials.get(served.name)
        if trial is None or arm is not c.Arm.CANARY:
            return self._default_share
        return max(self._default_share, trial.split.recall_sample)

    def record(self, collection: str, arm: c.Arm | None, value: float) -> None:
        """Records the recall of a search, 0..1."""
        trial = self._trials.get(collection)
        if trial is not None and arm is not None:
            trial.analysis.record_recall(arm is c.Arm.CANARY, value)


def _is_service_fault(error: Exception) -> bool:
    """Returns whether an error is a fault of the service, not of the caller."""
    return not isinstance(error, _CALLER_ERRORS)


def _ids(reply: object) -> set[str]:
    if isinstance(reply, c.SearchReply):
        return {hit.id for result in reply.results for hit in result.hits}
    if isinstance(reply, c.RecommendReply):
        return {one.hit.id for one in reply.recommendations}
    return set()
