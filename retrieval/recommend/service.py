"""The recommender: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from nearline import contract as c
from nearline.errors import DeadlineExceeded, InvalidRequest, NotReady, Unsupported
from nearline.snapshot import Store
from nearline.times import from_us, to_us
from retrieval.cache.cached_list import CacheLevel
from retrieval.protocols.request_validation import check_id, check_list_request
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.deletion_trace import find_influenced_snapshots
from retrieval.recommend.list_builder import CONTENT, UNORDERED, BuiltList, ListBuilder, ListRequest
from retrieval.recommend.policies import Policies
from retrieval.recommend.ranking import POPULAR
from retrieval.recommend.similar_items import SimilarItems
from retrieval.recommend.strategies import policy_filter_error
from retrieval.recommend.user_profile import build_profile, history_to_events, snapshot_history
from retrieval.redis_client.cooldown import Cooldown
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import Requester
from retrieval.router.events import InteractionsEvent, Observe, RecommendEvent
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import context_factory
from retrieval.users.export import event_to_interaction
from retrieval.users.records import EMPTY_STATE, UserState
from retrieval.users.states import UserStates

NO_USER_STATE = "no_user_state"
_PLAIN = c.RecommendOptions()
_log = logging.getLogger(__name__)
_WHY = {
    POPULAR: "nothing is known of the user, the session or the items",
    CONTENT: "nobody has interacted with the items yet, so their vectors speak",
    UNORDERED: "the snapshot learned from no interactions: build with --interactions FILE",
}


class RecommendationService:
    """Recommends items and remembers what users do; a `Recommender`.

    Args:
        collections: What is loaded.
        similar: Finds items by vector.
        policies: What surfaces ask of their lists.
        states: Where state of users is kept; None: nowhere, so that nothing can be recorded.
        hot: Lists that are the same for everybody; None: every list is made again.
        reports: Names lists.
        store: Holds the snapshots, of which some learned from a user who is deleted.
        rng: Draws what is explored.
        observe: Told of lists and interactions; None: nobody is.
    """

    def __init__(
        self,
        collections: ServedCollections,
        similar: SimilarItems,
        policies: Policies,
        states: UserStates | None = None,
        hot: CandidateCache | None = None,
        reports: ReplyInfoBuilder | None = None,
        store: Store | None = None,
        rng: np.random.Generator | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._collections = collections
        self._similar = similar
        self._policies = policies
        self._states = states
        self._hot = hot
        self._reports = reports or ReplyInfoBuilder(collections)
        self._store = store
        self._rng = rng or np.random.default_rng()
        self._observe = observe
        self._respite = Cooldown()

    @property
    def collections(self) -> ServedCollections:
        """What is loaded."""
        return self._collections

    async def recommend(
        self,
        audience: c.Audience,
        options: c.RecommendOptions = _PLAIN,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.RecommendReply:
        """Makes a list; see `Recommender.recommend`."""
        start = time.perf_counter()
        check_list_request(audience, options)
        policy = self._policies.of(audience.surface)
        begin = context_factory(timeout_s, options.min_watermark)

        async def answer(served: ServedCollection) -> c.RecommendReply:
            inquiry = begin()
            order = ListRequest(audience=audience, options=options, policy=policy)
            making = ListBuilder(served, order, inquiry, self._similar, self._hot, self._rng)
            making.begin()
            state, trouble = await self._state(collection, audience)
            made = await making.make(build_profile(served.learned, audience.user_id, state))
            spent_s = time.perf_counter() - start
            reply = c.RecommendReply(
                recommendations=made.recommendations,
                ignored_ids=made.ignored,
                info=self._reports.info(
                    served,
                    inquiry,
                    search_s=spent_s,
                    total_s=spent_s,
                    served_by=_served_by(made, audience, trouble),
                    watermark=made.hot.watermark if made.hot else None,
                ),
                policy=policy.label,
                why_not=made.why_not,
            )
            if policy.explore is not None:
                _log_shown(collection, reply)
            if self._observe is not None:
                personal = bool(audience.user_id or audience.session_id)
                arm = reply.info.arm
                self._observe(RecommendEvent(served, arm, audience, options, reply, personal))
            return reply

        asker = Requester(audience.user_id, audience.session_id)
        try:
            return await self._collections.answer(collection, answer, asker=asker)
        except InvalidRequest as error:
            raise policy_filter_error(error, options.filter, policy) from error

    async def record_interactions(
        self,
        interactions: Sequence[c.Interaction],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.RecordReply:
        """Stores interactions; see `Recommender.record_interactions`."""
        self._collections.check_served(collection)
        async with _within(timeout_s):
            reply = await self._kept().record(collection, interactions, idempotency_key)
        trial = self._collections.trials.get(collection)
        if trial is not None:
            trial.interacted(interactions)
        if self._observe is not None:
            self._observe(InteractionsEvent(collection, interactions))
        return reply

    async def get_user(
        self,
        user_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.UserRecord:
        """Reads all that is kept of a user; see `Recommender.get_user`."""
        self._check_user(collection, user_id)
        async with _within(timeout_s):
            record = await self._kept().export(collection, user_id)

        async def answer(served: ServedCollection) -> c.UserRecord:
            if served.learned is None:
                return record
            deleted_us = to_us(record.deleted) if record.deleted else 0
            events = history_to_events(
                served.learned, snapshot_history(served.learned, user_id, deleted_us)
            )
            return replace(record, learned=[event_to_interaction(user_id, one) for one in events])

        return await self._collections.answer(collection, answer)

    async def delete_user(
        self,
        user_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.DeletionReceipt:
        """Erases what is kept of a user; see `Recommender.delete_user`."""
        self._check_user(collection, user_id)
        async with _within(timeout_s):
            erased = await self._kept().delete(collection, user_id)
            snapshots: Sequence[c.Influence] = ()
            if self._store is not None:
                snapshots = await asyncio.to_thread(
                    find_influenced_snapshots, self._store, collection, user_id
                )
        return c.DeletionReceipt(
            deleted=from_us(erased.deleted_us),
            interactions=erased.interactions,
            log_entries=erased.log_entries,
            sessions=erased.sessions,
            snapshots=snapshots,
        )

    def _check_user(self, collection: str, user_id: str) -> None:
        if not user_id:
            raise InvalidRequest("user_id is empty; name the user", field="user_id")
        check_id(user_id, "user_id")
        self._collections.check_served(collection)

    def _kept(self) -> UserStates:
        if self._states is None:
            raise Unsupported(
                "this service keeps nothing of users; start the router with --redis URL"
            )
        return self._states

    async def _state(self, collection: str, audience: c.Audience) -> tuple[UserState, str]:
        """Reads what was recorded of somebody, and why that could not be done where it could not.

        A list without it is better than none.
        """
        if self._states is None or not (audience.user_id or audience.session_id):
            return EMPTY_STATE, ""
        if trouble := self._respite.reason:
            return EMPTY_STATE, trouble
        try:
            ids = (audience.user_id, audience.session_id)
            return await self._states.read(collection, *ids), ""
        except NotReady as error:
            self._respite.begin(error.message)
            return EMPTY_STATE, error.message


def _log_shown(collection: str, reply: c.RecommendReply) -> None:
    """Logs an explored list: with what became of it, another policy can be judged by it."""
    shown = [(one.hit.id, one.propensity) for one in reply.recommendations]
    about = {"collection": collection, "list_id": reply.info.list_id, "policy": reply.policy}
    _log.info("shown", extra={**about, "items": shown})


def _served_by(made: BuiltList, audience: c.Audience, trouble: str) -> c.ServedBy | None:
    if trouble:
        return c.ServedBy(source=c.Source.FALLBACK, rung=NO_USER_STATE, reason=trouble)
    source = made.source
    where, level = c.Source.LIVE, ""
    if made.hot is not None and made.hot.level is not CacheLevel.LIVE:
        where, level = c.Source.CACHE, made.hot.level.value
    if source not in _WHY:
        return c.ServedBy(source=where, reason=level) if level else None
    named = audience.user_id or audience.session_id or audience.item_ids
    if source == POPULAR and not named:
        return c.ServedBy(source=where, rung=POPULAR, reason=level)
    return c.ServedBy(source=c.Source.FALLBACK, rung=source, reason=_WHY[source])


@contextlib.asynccontextmanager
async def _within(timeout_s: float | None) -> AsyncIterator[None]:
    """Raises DeadlineExceeded where a caller's time is over; whether a write lasts is not known."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(
            f"the call took longer than its {timeout_s:g} s; send it again with the same key"
        ) from None
