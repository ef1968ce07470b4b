"""Deletes a user's data, and remembers when it was deleted."""

from __future__ import annotations

from typing import Any

from nearline.store.snapshot import partition_of
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import Durability
from retrieval.users import lua_scripts
from retrieval.users.codec import event_count, unpack_attributes
from retrieval.users.keys import marks_key, owner_digest, session_keys, user_keys
from retrieval.users.log_entries import entries_of_user
from retrieval.users.records import NEEDED_BY, DeletionResult

# Log entries deleted by one command.
_AT_ONCE = 256


async def delete_user(
    client: Redis, durability: Durability, collection: str, user_id: str, ttl_s: int
) -> DeletionResult:
    """Deletes the history, attributes, events, log entries and sessions of a user, durably.

    They can no longer be read, and marks tell those who have read them. The bytes of a log entry
    stay in Redis until the log is trimmed that far, and in the append-only file until Redis
    rewrites the file.

    Args:
        client: The Redis client. durability: Its durability.
        ttl_s: How long the deletion is remembered.
    Raises: NotReady: the deletion may be incomplete; repeat it.
    """
    await durability.check()
    keys = user_keys(collection, user_id)
    async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
        own = (keys.state, keys.recent, keys.log, marks_key(collection, partition_of(user_id)))
        pipe.eval(lua_scripts.ERASE, len(own), *own, ttl_s, owner_digest(user_id).hex())
        [reply], kept = await durability.execute(pipe)
        if isinstance(reply, Exception):
            raise reply
    durability.check_reply(kept)
    deleted_us, blob, last, attributes = reply
    upto_ms = int(deleted_us) // 1_000
    entries = sessions = 0
    found = await entries_of_user(client, keys, user_id, last)
    # Oldest first: if this fails, links lead the next attempt to the remaining ones.
    for start in range(0, len(found), _AT_ONCE):
        page = found[start : start + _AT_ONCE]
        names = {entry.fields.get(b"session", b"").decode() for entry in page} - {""}
        async with translate_redis_errors(NEEDED_BY), client.pipeline(transaction=False) as pipe:
            # Sessions first: if this fails, the remaining entries name them for the next attempt.
            for name in names:
                session = session_keys(collection, name)
                pipe.delete(session.state)
                pipe.delete(session.recent)
                marks = marks_key(collection, partition_of(name))
                mark: dict[Any, Any] = {"owner": owner_digest("", name).hex(), "upto": upto_ms}
                pipe.xadd(marks, mark, minid=upto_ms - ttl_s * 1_000)
                pipe.expire(marks, ttl_s)
            pipe.xdel(keys.log, *(entry.entry_id for entry in page))
            replies, kept = await durability.execute(pipe)
            for error in replies:
                if isinstance(error, Exception):
                    raise error
        durability.check_reply(kept)
        sessions += sum(replies[:-1:4])
        entries += replies[-1]
    async with translate_redis_errors(NEEDED_BY):
        await client.eval(lua_scripts.UNLINK, 1, keys.state, last)
    described = len(unpack_attributes(attributes))
    return DeletionResult(int(deleted_us), event_count(blob), entries, sessions, described)
