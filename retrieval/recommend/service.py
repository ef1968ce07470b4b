"""The recommender service, used by the wire servicers and directly by embedded programs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nearline import contract as c
from nearline.access.method_guard import current_caller
from nearline.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NearlineError,
    NotReady,
    Unsupported,
)
from nearline.filters import both
from nearline.items.sizes import attributes_bytes, text_bytes
from nearline.store.snapshot import Store
from nearline.times import from_us, to_us
from retrieval.cache.cached_list import CacheLevel
from retrieval.protocols import metrics
from retrieval.protocols.candidates import KeyedHistory
from retrieval.protocols.request_validation import check_id, check_list_request
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.deletion_trace import influenced_snapshots
from retrieval.recommend.history_cache import HistoryCache
from retrieval.recommend.list_builder import (
    BuiltList,
    ListBuilder,
    ListRequest,
    visible_profile,
)
from retrieval.recommend.personal_lists import PersonalLists, list_spec
from retrieval.recommend.policies import Policy, PolicySource
from retrieval.recommend.pool_filler import CONTENT, UNORDERED
from retrieval.recommend.ranking import POPULAR
from retrieval.recommend.user_profile import build_profile, history_to_events, since
from retrieval.redis_client.connection import Cooldown
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import Requester
from retrieval.router.events import Observe, RecommendEvent
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.search.candidates import read_history
from retrieval.search.collection import ServedCollection
from retrieval.search.item_lookup import fetch_items, ignored_ids
from retrieval.search.request_context import RequestContext, Visible, check_names, context_factory
from retrieval.users.export import event_to_interaction
from retrieval.users.imports import ImportedInteractions
from retrieval.users.records import EMPTY_STATE, NO_STATE, MadeUp, StoredState, UserState
from retrieval.users.states import UserStates
from retrieval.writes.feed_block import DISK, REDIS, FeedBlock

if TYPE_CHECKING:
    from retrieval.users.importer import Importer

NO_USER_STATE = "no_user_state"
_DEFAULTS = c.RecommendOptions()
_FILTER = "options.filter"
# Longest wait for the shards to say which items of recorded interactions exist.
_LOOKUP_S = 0.5
# Bytes that an interaction takes in Redis beyond its texts.
_INTERACTION_BYTES = 256
# Bytes that an imported interaction takes in the store.
_ROW_BYTES = 24
_R = TypeVar("_R")
_log = logging.getLogger(__name__)
_FALLBACK_REASONS = {
    POPULAR: "no interactions of the user, the session or the items are known",
    CONTENT: "the items have too few interactions yet, so similar items are listed",
    UNORDERED: "lists know no interactions yet, so new and different items are listed: record "
    "some, or wait for the first training of those that were imported (nearline status)",
}


class RecommendationService:
    """Recommends items and records interactions; implements `Recommender`.

    Args:
        collections: The loaded collections.
        policies: The policies of the surfaces of each collection.
        states: Optional state of users; None disables recording.
        cache: Optional cache of shared lists; None computes every list.
        personal: Optional cache of the lists of users; None computes every list.
        reports: Optional; builds the info of replies.
        store: Optional; finds the snapshots that were trained on a deleted user's interactions.
        rng: Optional; draws explored items.
        observe: Optional observer of lists and interactions.
        visible: Says which items the caller may see. Optional; None shows all.
        feed_block: Refuses interactions while Redis is nearly full. Optional; None records all.
    """

    def __init__(
        self,
        collections: ServedCollections,
        policies: PolicySource,
        states: UserStates | None = None,
        cache: CandidateCache | None = None,
        personal: PersonalLists | None = None,
        reports: ReplyInfoBuilder | None = None,
        store: Store | None = None,
        rng: np.random.Generator | None = None,
        observe: Observe | None = None,
        visible: Visible = lambda: None,
        feed_block: FeedBlock | None = None,
    ) -> None:
        self._feed_block = feed_block or FeedBlock(())
        self._visible = visible
        self._collections = collections
        self._policies = policies
        self._user_states = states
        self._cache = cache
        self._reports = reports or ReplyInfoBuilder(collections)
        self._store = store
        self._rng = rng or np.random.default_rng()
        self._observe = observe
        self._cooldown = Cooldown()
        self._histories = HistoryCache()
        self._personal = personal

    @property
    def collections(self) -> ServedCollections:
        """The loaded collections."""
        return self._collections

    async def recommend(
        self,
        audience: c.Audience,
        options: c.RecommendOptions = _DEFAULTS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.RecommendReply:
        """Returns a list; see `Recommender.recommend`."""
        start = time.perf_counter()
        check_list_request(audience, options)
        policy = self._policies.of(collection).for_surface(audience.surface)
        visible = self._visible()
        if visible is not None:
            options = replace(options, filter=both(options.filter, visible))
        new_context = context_factory(timeout_s, options.min_watermark, visible)

        async def answer(served: ServedCollection) -> c.RecommendReply:
            nonlocal policy
            context = new_context(served)
            policy = self._policies.of(collection, served.variant).for_surface(audience.surface)
            check_names(served, visible, both(options.filter, policy.only))
            request = ListRequest(audience=audience, options=options, policy=policy)
            built, state_error = await self._list(served, request, context)
            if built.cached is not None:
                context.stale_list = built.cached.stale
            spent_s = time.perf_counter() - start
            reply = c.RecommendReply(
                recommendations=built.recommendations,
                ignored_ids=built.ignored,
                info=self._reports.info(
                    served,
                    context,
                    search_s=spent_s,
                    total_s=spent_s,
                    surface=audience.surface,
                    served_by=_served_by(built, audience, state_error),
                    watermark=built.cached.watermark if built.cached else None,
                ),
                policy=policy.label,
                why_not=built.why_not,
                story=built.story,
            )
            if policy.explore is not None:
                _log_shown(collection, reply)
            if self._observe is not None:
                personal = bool(audience.user_id or audience.session_id)
                arm = reply.info.arm
                self._observe(RecommendEvent(served, arm, audience, options, reply, personal))
            return reply

        requester = Requester(audience.user_id, audience.session_id, audience.surface)
        try:
            return await self._collections.answer(collection, answer, requester=requester)
        except InvalidRequest as error:
            raise _name_filter(error, options.filter, policy) from error

    async def _list(
        self, served: ServedCollection, request: ListRequest, context: RequestContext
    ) -> tuple[BuiltList, str]:
        """Returns a list, and why the state of the user could not be read, if so."""
        started_us = time.time_ns() // 1_000
        personal, user_id = self._personal, request.audience.user_id
        spec = None if personal is None else list_spec(served, request)
        reading = self._read_state(served.name, request.audience)
        if personal is not None and spec is not None and personal.holds(spec):
            # Most probably, all else is not needed.
            stored, state_error = await reading
            if not state_error and (kept := personal.get(spec, stored)) is not None:
                return kept, ""
            reading = _done((stored, state_error))
        builder = ListBuilder(served, request, context, self._cache, self._rng)
        builder.prefetch()
        (stored, state_error), trained = await self._histories.read_alongside(
            reading, served, user_id, context
        )
        state, state_error = await self._decode(served.name, stored, state_error)
        weights = served.learned.kind_weights if served.learned else {}
        built = await builder.build(build_profile(state, trained, weights))
        if personal is not None and spec is not None and not state_error:
            built = personal.put(spec, stored, built, context, started_us)
        return built, state_error

    async def history(
        self, served: ServedCollection, audience: c.Audience, context: RequestContext
    ) -> KeyedHistory:
        """Returns what a user and a session did with items that the caller may see.

        context: Records why Redis could not be read.
        """
        (stored, error), trained = await self._histories.read_alongside(
            self._read_state(served.name, audience), served, audience.user_id, context
        )
        state, error = await self._decode(served.name, stored, error)
        if error:
            context.reduced = f"the search is personal by learned interactions alone: {error}"
        weights = served.learned.kind_weights if served.learned else {}
        profile = build_profile(state, trained, weights)
        return (await visible_profile(profile, served, context)).history

    async def record_interactions(
        self,
        interactions: Sequence[c.Interaction],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.RecordReply:
        """Records interactions; see `Recommender.record_interactions`."""
        self._collections.check_served(collection)
        states, caller = self._require_states(), current_caller()
        size = sum(map(_bytes_of, interactions))
        ids = [one.item_id for one in interactions]
        limit_s = _LOOKUP_S if timeout_s is None else min(_LOOKUP_S, timeout_s / 4)
        missing = await self._missing_items(collection, ids, limit_s)
        tenant = "" if caller.names_tenants else caller.tenant
        made_up = MadeUp(tenant, set(ids) if missing is None else missing)
        with self._feed_block.adding("interactions", size, only=(REDIS,)):
            async with _deadline(timeout_s):
                reply = await states.record(collection, interactions, idempotency_key, made_up)
        unknown = sum(one in (missing or ()) for one in ids)
        metrics.unknown_items.labels(collection).inc(unknown)
        reply = replace(reply, unknown_items=unknown)
        trial = self._collections.trials.get(collection)
        if trial is not None:
            trial.record_interactions(interactions)
        return reply

    async def import_interactions(
        self,
        batches: AsyncIterable[c.InteractionColumns],
        *,
        import_id: str,
        first_row: int = 0,
        collection: str = c.DEFAULT_COLLECTION,
    ) -> c.ImportReply:
        """Stores interactions of the past; see `Recommender.import_interactions`."""
        self._collections.check_served(collection)
        self._require_states()  # Without users, nobody could be deleted from it.
        importer = await asyncio.to_thread(self._importer, collection, import_id, first_row)
        async for columns in batches:
            # It may have been dropped meanwhile.
            self._collections.check_served(collection)
            size = len(columns.user_ids) * _ROW_BYTES
            with self._feed_block.adding("interactions", size, only=(DISK,)):
                await asyncio.to_thread(importer.add, columns)
        self._collections.check_served(collection)
        return await asyncio.to_thread(importer.finish)

    def _importer(self, collection: str, import_id: str, first_row: int) -> Importer:
        # Imported late, and in a thread: a router needs no pyarrow until somebody imports.
        from retrieval.users.importer import Importer

        if self._store is None:
            raise Unsupported("this service has no store; call the router of the collection")
        return Importer(ImportedInteractions(self._store, collection), import_id, first_row)

    async def _missing_items(
        self, collection: str, ids: Sequence[str], limit_s: float
    ) -> set[str] | None:
        """Returns the items that no shard has; None if no shard tells in time."""

        async def answer(served: ServedCollection) -> set[str]:
            deadline = asyncio.get_running_loop().time() + limit_s
            context = RequestContext(deadline, visible=self._visible())
            found = await fetch_items(served, ids, frozenset(), context)
            ignored = ignored_ids(served, ids, found)
            return {one.id for one in ignored if one.reason is c.IgnoredReason.NOT_FOUND}

        try:
            # Without a requester, it belongs to no arm of a trial.
            return await self._collections.answer(collection, answer)
        except NearlineError:
            # They are recorded all the same, which is what counts.
            return None

    async def set_user(
        self,
        user_id: str,
        attributes: c.Attributes,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> None:
        """Sets the attributes of a user; see `Recommender.set_user`."""
        self._check_user(collection, user_id)
        size = _INTERACTION_BYTES + attributes_bytes(attributes)
        with self._feed_block.adding("attributes", size, only=(REDIS,)):
            async with _deadline(timeout_s):
                await self._require_states().set_attributes(collection, user_id, attributes)

    async def get_user(
        self,
        user_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.UserRecord:
        """Returns the data stored about a user; see `Recommender.get_user`."""
        self._check_user(collection, user_id)
        new_context = context_factory(timeout_s, b"")
        async with _deadline(timeout_s):
            record = await self._require_states().export(collection, user_id)

        async def answer(served: ServedCollection) -> c.UserRecord:
            trained = await read_history(served, user_id, new_context(served))
            deleted_us = to_us(record.deleted) if record.deleted else 0
            events = history_to_events(since(trained, deleted_us))
            return replace(record, learned=[event_to_interaction(user_id, one) for one in events])

        return await self._collections.answer(collection, answer)

    async def delete_user(
        self,
        user_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.DeletionReceipt:
        """Deletes everything stored about a user; see `Recommender.delete_user`."""
        self._check_user(collection, user_id)
        async with _deadline(timeout_s):
            deletion = await self._require_states().delete(collection, user_id)
            snapshots: Sequence[c.Influence] = ()
            left_out = False
            if self._store is not None:
                imported = ImportedInteractions(self._store, collection)
                left_out = await asyncio.to_thread(
                    imported.mark_deleted, user_id, deletion.deleted_us
                )
                snapshots = await asyncio.to_thread(
                    influenced_snapshots, self._store, collection, user_id
                )
        return c.DeletionReceipt(
            deleted=from_us(deletion.deleted_us),
            interactions=deletion.interactions,
            log_entries=deletion.log_entries,
            sessions=deletion.sessions,
            snapshots=snapshots,
            imports_left_out=left_out,
            attributes=deletion.attributes,
        )

    def _check_user(self, collection: str, user_id: str) -> None:
        if not user_id:
            raise InvalidRequest("user_id is empty; name the user", field="user_id")
        check_id(user_id, "user_id")
        self._collections.check_served(collection)

    def _require_states(self) -> UserStates:
        if self._user_states is None:
            raise Unsupported(
                "this service stores no state of users; start the router with --redis URL "
                "(nearline up: without --no-redis)"
            )
        return self._user_states

    async def _read_state(self, collection: str, audience: c.Audience) -> tuple[StoredState, str]:
        """Returns the state of a user and a session, and why it could not be read, if so.

        A list without that state is better than none.
        """
        states = self._user_states
        if states is None or not (audience.user_id or audience.session_id):
            return NO_STATE, ""
        if reason := self._cooldown.reason:
            return NO_STATE, reason
        try:
            return await states.fetch(collection, audience.user_id, audience.session_id), ""
        except NotReady as error:
            self._cooldown.begin(error.message)
            return NO_STATE, error.message

    async def _decode(
        self, collection: str, stored: StoredState, state_error: str
    ) -> tuple[UserState, str]:
        """Returns a state, and why it could not be read, if so."""
        if self._user_states is None or stored == NO_STATE:
            return EMPTY_STATE, state_error
        try:
            return await self._user_states.decode(collection, stored), state_error
        except NotReady as error:
            self._cooldown.begin(error.message)
            return EMPTY_STATE, error.message


async def _done(result: _R) -> _R:
    return result


def _name_filter(
    error: InvalidRequest, requested: c.Filter | None, policy: Policy
) -> InvalidRequest:
    """Returns an error that names the filter at fault, if the policy has one, too."""
    if policy.only is None or not error.field.startswith(_FILTER):
        return error
    if requested is None:
        message = f"policy {policy.label} (only): {error.message}; correct it in the policy file"
        return InvalidRequest(message, field="surface")
    message = f"{error.message} (policy {policy.label} has a filter, too)"
    return InvalidRequest(message, field=error.field)


def _log_shown(collection: str, reply: c.RecommendReply) -> None:
    """Logs an explored list with its propensities."""
    shown = [(one.hit.id, one.propensity) for one in reply.recommendations]
    about = {"collection": collection, "list_id": reply.info.list_id, "policy": reply.policy}
    _log.info("shown", extra={**about, "items": shown})


def _served_by(built: BuiltList, audience: c.Audience, state_error: str) -> c.ServedBy | None:
    """Returns where a list came from; None for a live list that is no fallback."""
    if state_error:
        return c.ServedBy(source=c.Source.FALLBACK, rung=NO_USER_STATE, reason=state_error)
    source, level = c.Source.LIVE, ""
    if built.cached is not None and built.cached.level is not CacheLevel.LIVE:
        source, level = c.Source.CACHE, built.cached.level.value
    if built.source not in _FALLBACK_REASONS:
        return c.ServedBy(source=source, reason=level) if level else None
    is_addressed = audience.user_id or audience.session_id or audience.item_ids
    if built.source == POPULAR and not is_addressed:
        return c.ServedBy(source=source, rung=POPULAR, reason=level)
    reason = _FALLBACK_REASONS[built.source]
    return c.ServedBy(source=c.Source.FALLBACK, rung=built.source, reason=reason)


def _bytes_of(one: c.Interaction) -> int:
    """Returns about how many bytes an interaction takes in Redis."""
    texts = (one.item_id, one.user_id, one.session_id, one.kind, one.list_id, one.event_id)
    return _INTERACTION_BYTES + sum(map(text_bytes, texts))


@contextlib.asynccontextmanager
async def _deadline(timeout_s: float | None) -> AsyncIterator[None]:
    """Raises DeadlineExceeded after a timeout; a write may have been carried out all the same."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(
            f"the call took longer than its {timeout_s:g} s; send it again with the same key"
        ) from None
