"""Reads, records, exports and deletes the state of users and sessions in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import cast

from nearline.contract import Attributes
from nearline.contract.recommendations import Interaction, RecordReply, UserRecord
from nearline.store.snapshot import check_collection
from nearline.times import from_us
from retrieval.protocols.request_validation import check_attributes
from retrieval.redis_client.connection import Command, Redis, RedisReader, translate_redis_errors
from retrieval.redis_client.durability import Durability
from retrieval.users import lua_scripts
from retrieval.users.codec import MAX_EVENTS, pack_attributes, unpack_attributes
from retrieval.users.deletion import delete_user
from retrieval.users.dictionary import MAX_NAMES, Dictionary
from retrieval.users.export import export_interactions
from retrieval.users.keys import session_keys, user_keys
from retrieval.users.log_entries import (
    all_entries,
    count_entries,
    decode_interaction,
    entries_of_user,
)
from retrieval.users.recorder import partition_by_owner, record_interactions
from retrieval.users.records import (
    ALL_EXIST,
    NEEDED_BY,
    NO_STATE,
    DeletionResult,
    LoggedInteraction,
    MadeUp,
    StoredState,
    UserEvent,
    UserState,
)
from retrieval.users.validation import check_interactions, check_owner_id

DAY_S = 86_400
_RING = 128
_USER_TTL_S = 180 * DAY_S
_SESSION_TTL_S = 1_800
_LOG_DAYS = 30
_USERS_PER_CALL = 1_000
# Interactions of a user in one reply: 25 MB if all ids are as long as they may be.
_MOST = 10_000
# Maximum time that a list waits for the state of its user.
_READ_TIMEOUT_S = 0.1


class UserStates:
    """The state of the users and sessions of all collections.

    Args:
        client: Must not retry commands automatically.
        durability: Durability that uses the same client.
        ring: Newest events kept of each user and session, 1..1000.
        user_ttl_s, session_ttl_s: How long a user and a session are kept after their last
            interaction. A deletion is remembered for user_ttl_s, too.
        log_days: How long the log keeps interactions. Not shorter than session_ttl_s, because a
            deletion finds the sessions of a user in the log, and not longer than user_ttl_s,
            because the state of a user leads to the log.
        max_names: Item ids and kinds that a dictionary of a collection holds before it is replaced.
    Raises: ValueError: a value is out of range.
    """

    def __init__(
        self,
        client: Redis,
        durability: Durability,
        *,
        ring: int = _RING,
        user_ttl_s: int = _USER_TTL_S,
        session_ttl_s: int = _SESSION_TTL_S,
        log_days: int = _LOG_DAYS,
        max_names: int = MAX_NAMES,
    ) -> None:
        if not 1 <= ring <= MAX_EVENTS:
            raise ValueError(f"ring is {ring}; 1..{MAX_EVENTS} events are allowed")
        if not 1 <= session_ttl_s <= log_days * DAY_S <= user_ttl_s:
            raise ValueError(
                f"session_ttl_s is {session_ttl_s} and user_ttl_s is {user_ttl_s}; the log keeps "
                f"{log_days * DAY_S} s, not less than sessions, nor more than users: a deletion "
                "finds sessions in the log, and the log by the user"
            )
        self._client = client
        self._durability = durability
        self._ring = ring
        self._ttl_s = (user_ttl_s, session_ttl_s)
        self._max_names = max_names
        self._log_ms = log_days * DAY_S * 1_000
        self._reads = RedisReader(client, NEEDED_BY, _READ_TIMEOUT_S)
        self._dictionaries: dict[str, Dictionary] = {}

    async def read(self, collection: str, user_id: str = "", session_id: str = "") -> UserState:
        """Returns the state that a recommendation needs, in one round trip if all names are cached.

        Raises: NotReady.
        """
        return await self.decode(collection, await self.fetch(collection, user_id, session_id))

    async def fetch(self, collection: str, user_id: str = "", session_id: str = "") -> StoredState:
        """Returns the state of a user and a session as it is stored, in one round trip.

        Raises: NotReady.
        """
        if not user_id and not session_id:
            return NO_STATE
        user = session = deleted = attributes = None
        commands: list[Command] = []
        if user_id:
            commands.append(("HMGET", user_keys(collection, user_id).state, "h", "x", "a"))
        if session_id:
            commands.append(("HGET", session_keys(collection, session_id).state, "h"))
        replies = await self._reads.ask(*commands)
        if user_id:
            user, deleted, attributes = replies[0]
        if session_id:
            session = replies[-1]
        return StoredState(user or b"", session or b"", int(deleted or 0), attributes or b"")

    async def decode(self, collection: str, stored: StoredState) -> UserState:
        """Decodes a state; asks Redis only for names that are not cached.

        Raises: NotReady.
        """
        blobs = [blob for blob in (stored.user, stored.session) if blob]
        histories = await self._dictionary(collection).events(blobs) if blobs else []
        attributes = unpack_attributes(stored.attributes)
        return UserState(_merge(histories, self._ring), stored.deleted_us, attributes)

    async def record(
        self,
        collection: str,
        interactions: Sequence[Interaction],
        idempotency_key: str = "",
        made_up: MadeUp = ALL_EXIST,
    ) -> RecordReply:
        """Records 1..1024 interactions; returns once they are durable.

        An interaction with a user and a session is recorded for both. One without a time gets the
        current time.

        Args:
            made_up: Which of the items do not exist. Optional.
        Raises: InvalidRequest: see `check_interactions`. NotReady: Redis is unavailable, or is not
            configured durably. FeedBlocked: the tenant has made up too many names.
        """
        now_us = time.time_ns() // 1_000
        check_interactions(interactions, idempotency_key, now_us)
        await self._durability.check()
        return await record_interactions(
            self._client,
            self._durability,
            self._dictionary(collection),
            partition_by_owner(collection, interactions, idempotency_key, now_us, self._ttl_s),
            now_s=now_us // 1_000_000,
            ring=self._ring,
            log_ms=self._log_ms,
            made_up=made_up,
        )

    async def set_attributes(self, collection: str, user_id: str, attributes: Attributes) -> None:
        """Replaces the attributes of a user; returns once they are durable.

        Raises: InvalidRequest: see `check_attributes`. NotReady: try again.
        """
        check_owner_id(user_id, "user_id")
        check_attributes(attributes, "attributes")
        packed, client = pack_attributes(attributes), self._client
        state = user_keys(collection, user_id).state
        await self._durability.check()
        async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
            pipe.eval(lua_scripts.DESCRIBE, 1, state, packed, self._ttl_s[0])
            [reply], kept = await self._durability.execute(pipe)
            if isinstance(reply, Exception):
                raise reply
        self._durability.check_reply(kept)

    async def export(self, collection: str, user_id: str) -> UserRecord:
        """Returns the newest 10,000 recorded interactions of a user, of the log and the history.

        Those that only the history has are exact to the second, and lack list, event and session.

        Raises: InvalidRequest: the id is invalid. NotReady.
        """
        check_owner_id(user_id, "user_id")
        keys = user_keys(collection, user_id)
        async with translate_redis_errors(NEEDED_BY):
            found = self._client.hmget(keys.state, "h", "x", "a", "l")
            blob, deleted, attributes, last = await cast(Awaitable[list[bytes | None]], found)
        events = (await self._dictionary(collection).events([blob]))[0] if blob else []
        logged = [
            decode_interaction(entry.fields)
            for entry in await entries_of_user(self._client, keys, user_id, last or b"", _MOST)
        ]
        # Thousands would hold the event loop.
        exported = await asyncio.to_thread(export_interactions, user_id, logged, events)
        return UserRecord(
            interactions=exported[:_MOST],
            deleted=from_us(int(deleted)) if deleted else None,
            attributes=unpack_attributes(attributes or b""),
        )

    async def delete(self, collection: str, user_id: str) -> DeletionResult:
        """Deletes the history, attributes, events, log entries and sessions of a user, durably.

        Only the time of the deletion is kept. May be repeated, also after an error.

        Raises: InvalidRequest: the id is invalid. NotReady: try again.
        """
        check_owner_id(user_id, "user_id")
        return await delete_user(
            self._client, self._durability, collection, user_id, self._ttl_s[0]
        )

    def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        """Yields all interactions of the log, for the next build, in no order of users.

        Raises: NotReady.
        """
        return all_entries(self._client, collection)

    async def count_logged(self, collection: str) -> int:
        """Returns the number of interactions of the log, with those of sessions without a user.

        Raises: NotReady.
        """
        return await count_entries(self._client, collection)

    async def deleted(self, collection: str, user_ids: Sequence[str]) -> Mapping[str, int]:
        """Returns when users were last deleted, in microseconds; users that never were are omitted.

        Raises: NotReady.
        """
        found = await self._fields(collection, user_ids, "x")
        return {one: int(at) for one, at in found.items()}

    async def attributes(self, collection: str, user_ids: Sequence[str]) -> dict[str, Attributes]:
        """Returns the attributes of users, for a training; users without any are omitted.

        Raises: NotReady.
        """
        found = await self._fields(collection, user_ids, "a")
        return {one: unpack_attributes(blob) for one, blob in found.items()}

    async def _fields(
        self, collection: str, user_ids: Sequence[str], name: str
    ) -> dict[str, bytes]:
        """Returns a field of the state of each user who has it."""
        found: dict[str, bytes] = {}
        for start in range(0, len(user_ids), _USERS_PER_CALL):
            page = user_ids[start : start + _USERS_PER_CALL]
            pipe = self._client.pipeline(transaction=False)
            async with translate_redis_errors(NEEDED_BY), pipe:
                for user_id in page:
                    pipe.hget(user_keys(collection, user_id).state, name)
                replies = await pipe.execute()
            found |= {one: value for one, value in zip(page, replies, strict=True) if value}
        return found

    def _dictionary(self, collection: str) -> Dictionary:
        if collection not in self._dictionaries:
            check_collection(collection)
            self._dictionaries[collection] = Dictionary(
                self._client, self._durability, collection, max(self._ttl_s), self._max_names
            )
        return self._dictionaries[collection]


def _merge(histories: Sequence[Sequence[UserEvent]], most: int) -> Sequence[UserEvent]:
    """Merges the histories of a user and a session, which may share events."""
    if len(histories) < 2:
        return histories[0] if histories else ()
    user, session = histories
    own = set(user)
    more = [event for event in session if event not in own]
    if not more:
        return user
    return sorted([*user, *more], key=lambda event: event.time_us, reverse=True)[:most]
