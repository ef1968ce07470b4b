"""Stores conversations in Redis, one key each, for all replicas of the service.

The value is a list. Its head has the version of the format, the version of the session and the id
of the last change; then follows a JSON object for each turn, oldest first.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from nearline.contract import MAX_SESSION_ID, Session, Turn
from nearline.errors import Conflict, InvalidRequest, Unsupported
from nearline.sentences import estimate_tokens, token_starts
from nearline.store.snapshot import check_collection
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.writes.memory_quota import MemoryQuota

TTL_S = 86_400
MAX_TURNS = 50
MAX_BYTES = 1 << 18
# Questions may be longer than what any conversation needs.
MAX_TURN_BYTES = 1 << 16
_HEAD = re.compile(rb"nearline-session 1 ([0-9]{1,15}) ([0-9a-f]{16})")
# Adds a turn if the version matches, drops the oldest turns, and renews the expiry.
# KEYS: the session. ARGV: expected version, id of this change, turn, TTL in seconds, maximum
# turns, maximum bytes. Returns the new version; -1 and the actual version if it differs; nothing
# if the value is not a session. A change is sent again if its reply was lost; it then finds its
# own id, which means that it had succeeded.
_APPEND = """
local kind = redis.call('TYPE', KEYS[1]).ok
local version, change = '0', ''
if kind == 'list' then
  version, change = string.match(
    redis.call('LINDEX', KEYS[1], 0), '^nearline%-session 1 (%d+) (%x+)$')
elseif kind ~= 'none' then
  version = nil
end
if not version then return {} end
if change == ARGV[2] then return {tonumber(version)} end
if version ~= ARGV[1] then return {-1, tonumber(version)} end
local head = 'nearline-session 1 ' .. string.format('%d', version + 1) .. ' ' .. ARGV[2]
if kind == 'none' then
  redis.call('RPUSH', KEYS[1], head)
else
  redis.call('LSET', KEYS[1], 0, head)
end
redis.call('RPUSH', KEYS[1], ARGV[3])
local turns = redis.call('LRANGE', KEYS[1], 1, -1)
local kept, bytes = 0, 0
for i = #turns, 1, -1 do
  bytes = bytes + #turns[i]
  if kept > 0 and (kept >= tonumber(ARGV[5]) or bytes > tonumber(ARGV[6])) then break end
  kept = kept + 1
end
if kept < #turns then
  redis.call('LTRIM', KEYS[1], -kept, -1)
  redis.call('LPUSH', KEYS[1], head)
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {version + 1}
"""
# KEYS: the session. Returns the type of the value, its elements if it is a list, and its remaining
# milliseconds.
_LOAD = """
local kind = redis.call('TYPE', KEYS[1]).ok
local values = kind == 'list' and redis.call('LRANGE', KEYS[1], 0, -1) or {}
return {kind, values, redis.call('PTTL', KEYS[1])}
"""


class SessionStore:
    """Reads, extends and deletes conversations; keeps no state itself.

    Every method raises InvalidRequest if an id is malformed, and NotReady if Redis is unavailable.

    Args:
        redis: Connection to Redis.
        ttl_s: Lifetime of a session after its last turn, in seconds, >= 1.
        max_turns: Maximum turns per session, >= 1; the oldest are dropped.
        max_bytes: Maximum bytes per session, as JSON; the last turn is always kept.
        quota: Bounds what is stored of each tenant. Optional.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        ttl_s: int = TTL_S,
        max_turns: int = MAX_TURNS,
        max_bytes: int = MAX_BYTES,
        quota: MemoryQuota | None = None,
    ) -> None:
        self._redis = redis
        self._quota = quota
        self._limits = (ttl_s, max_turns, max_bytes)

    async def load(self, collection: str, tenant: str, session_id: str) -> Session:
        """Returns a stored conversation; its version is 0 if there is none.

        Raises: Unsupported: the stored value is not a session that this version can read.
        """
        key = session_key(collection, tenant, session_id)
        async with translate_redis_errors():
            kind, values, left_ms = await self._redis.eval(_LOAD, 1, key)
        if kind == b"none":
            return Session(id=session_id, version=0, turns=())
        if kind != b"list":
            raise _unreadable_error(session_id)
        head = _HEAD.fullmatch(values[0])
        if head is None:
            raise _unreadable_error(session_id)
        try:
            turns = [_decoded(value) for value in values[1:]]
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable_error(session_id) from error
        expires = datetime.now(UTC) + timedelta(milliseconds=left_ms) if left_ms >= 0 else None
        return Session(id=session_id, version=int(head[1]), turns=turns, expire_time=expires)

    async def append(
        self, collection: str, tenant: str, session_id: str, turn: Turn, expected_version: int
    ) -> int:
        """Adds a turn if the version matches, and drops the oldest turns beyond the limits.

        Args:
            expected_version: Version of the session that the turn continues; 0 for a new session.
        Returns: The new version.
        Raises: Conflict: the session has a different version. Unsupported: see `load`.
            InvalidRequest: the turn is too large. FeedBlocked: see `MemoryQuota.reserve`.
        """
        key = session_key(collection, tenant, session_id)
        value = _encoded(turn)
        if len(value) > MAX_TURN_BYTES:
            raise InvalidRequest(
                f"the question and its answer have {len(value):,} bytes, and a conversation stores "
                f"turns of at most {MAX_TURN_BYTES:,}; ask a shorter question"
            )
        if self._quota is not None:
            await self._quota.reserve(tenant, len(value))
        change = secrets.token_hex(8)
        async with translate_redis_errors():
            said = await self._redis.eval(
                _APPEND, 1, key, expected_version, change, value, *self._limits
            )
        if not said:
            raise _unreadable_error(session_id)
        if said[0] < 0:
            raise Conflict(
                f"session {session_id!r} has version {said[1]}, not {expected_version}: another "
                "caller continued it, or it was deleted; read it again"
            )
        return int(said[0])

    async def delete(self, collection: str, tenant: str, session_id: str) -> bool:
        """Deletes a conversation, readable or not; returns False if there was none."""
        key = session_key(collection, tenant, session_id)
        async with translate_redis_errors():
            return bool(await self._redis.delete(key))


def session_key(collection: str, tenant: str, session_id: str) -> str:
    """Returns the key of a session; the part in braces selects its slot in a Redis Cluster.

    Raises: InvalidRequest: the id or the collection is malformed.
    """
    if not (0 < len(session_id) <= MAX_SESSION_ID and session_id.isprintable()):
        raise InvalidRequest(
            f"session_id {session_id[:MAX_SESSION_ID]!r} is not allowed; use 1..{MAX_SESSION_ID} "
            "printable characters",
            field="session_id",
        )
    # Escaped parts cannot contain the separators, so no two sessions share a key.
    parts = (check_collection(collection), quote(tenant, safe=""), quote(session_id, safe=""))
    return "nearline:{" + "/".join(parts) + "}:session"


def recent_turns(turns: Sequence[Turn], max_tokens: int) -> list[Turn]:
    """Returns the newest turns that fit into a number of tokens, oldest first.

    If even the newest turn does not fit, its answer is truncated, because a follow-up question
    needs this turn most. If even its question does not fit, the list is empty.
    """
    kept: list[Turn] = []
    left = max_tokens
    for turn in reversed(turns):
        left -= estimate_tokens(turn.question) + estimate_tokens(turn.answer)
        if left < 0:
            break
        kept.append(turn)
    if turns and not kept:
        kept = _cut(turns[-1], max_tokens)
    return kept[::-1]


def _cut(turn: Turn, max_tokens: int) -> list[Turn]:
    left = max_tokens - estimate_tokens(turn.question)
    if left < 0:
        return []
    end = list(token_starts(turn.answer, 0, len(turn.answer)))[left]
    return [replace(turn, answer=turn.answer[:end].rstrip())]


def _encoded(turn: Turn) -> bytes:
    record = {
        "question": turn.question,
        "answer": turn.answer,
        "condensed": turn.condensed,
        "snapshot_id": turn.snapshot_id,
        "time": None if turn.time is None else turn.time.astimezone(UTC).isoformat(),
    }
    # Not as ASCII, in which an emoji takes 12 bytes.
    return json.dumps(record, ensure_ascii=False).encode(errors="surrogatepass")


def _decoded(value: bytes) -> Turn:
    record = json.loads(value)
    texts = [record[name] for name in ("question", "answer", "condensed", "snapshot_id")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is none")
    question, answer, condensed, snapshot_id = texts
    time = None if record["time"] is None else datetime.fromisoformat(record["time"])
    return Turn(question, answer, condensed, snapshot_id, time)


def _unreadable_error(session_id: str) -> Unsupported:
    return Unsupported(
        f"the stored value of session {session_id!r} has a format that this version of Nearline "
        "cannot read; delete it with nearline sessions delete, or use another id"
    )
