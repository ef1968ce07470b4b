"""Conversations in Redis: a key for each, which any replica of the service reads and writes.

A key holds a list: first a head with the number of its form, its version and the name of the last
change, then a JSON object for each turn, oldest first.
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
from nearline.snapshot import check_collection
from retrieval.redis_client.connection import Redis, translate_redis_errors

TTL_S = 86_400
MAX_TURNS = 50
MAX_BYTES = 1 << 18
_HEAD = re.compile(rb"nearline-session 1 ([0-9]{1,15}) ([0-9a-f]{16})")
# Adds a turn unless somebody else came first, drops the oldest ones, and starts the time again.
# KEYS: the session. ARGV: version expected, name of this change, turn, seconds, turns, bytes.
# Answers the new version; -1 and what is there: another version; nothing: not a session.
# A change whose answer was lost is sent again; it finds its own name, and has succeeded.
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


class SessionStore:
    """Reads, extends and forgets conversations; holds nothing of them itself.

    Every method raises InvalidRequest where an id is malformed, and NotReady where Redis is away.

    Args:
        redis: Where they are.
        ttl_s: Seconds that one is kept after its last turn, >= 1.
        max_turns: Most turns kept of one, >= 1; the oldest go first.
        max_bytes: Most bytes kept of one, as JSON; its last turn stays, however large.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        ttl_s: int = TTL_S,
        max_turns: int = MAX_TURNS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._redis = redis
        self._append = redis.register_script(_APPEND)
        self._limits = (ttl_s, max_turns, max_bytes)

    async def load(self, collection: str, tenant: str, session_id: str) -> Session:
        """Returns a conversation, all that is remembered of it; version 0 where nothing is.

        Raises: Unsupported: what lies there is not a session that this version can read.
        """
        key = session_key(collection, tenant, session_id)
        async with translate_redis_errors(), self._redis.pipeline(transaction=True) as pipe:
            pipe.type(key)
            pipe.lrange(key, 0, -1)
            pipe.pttl(key)
            # Reading a value of another kind fails; its kind says why.
            kind, values, left_ms = await pipe.execute(raise_on_error=False)
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
        """Adds a turn, if nobody did since; forgets the oldest beyond the limits.

        Args:
            expected_version: Of the session that the turn goes on; 0: there is none yet.
        Returns: The new version.
        Raises: Conflict: the session has another version. Unsupported: as `load`.
        """
        key = session_key(collection, tenant, session_id)
        change = secrets.token_hex(8)
        async with translate_redis_errors():
            said = await self._append(
                keys=[key], args=[expected_version, change, _encoded(turn), *self._limits]
            )
        if not said:
            raise _unreadable_error(session_id)
        if said[0] < 0:
            raise Conflict(
                f"session {session_id!r} has version {said[1]}, not {expected_version}: somebody "
                "else went on with it, or it was forgotten; read it again"
            )
        return int(said[0])

    async def delete(self, collection: str, tenant: str, session_id: str) -> bool:
        """Forgets a conversation, readable or not; False where there was none."""
        key = session_key(collection, tenant, session_id)
        async with translate_redis_errors():
            return bool(await self._redis.delete(key))


def session_key(collection: str, tenant: str, session_id: str) -> str:
    """Returns the key of a session; what is in braces decides its slot in a Redis Cluster.

    Raises: InvalidRequest: a malformed id or collection.
    """
    if not (0 < len(session_id) <= MAX_SESSION_ID and session_id.isprintable()):
        raise InvalidRequest(
            f"session_id {session_id[:MAX_SESSION_ID]!r} is not allowed; use 1..{MAX_SESSION_ID} "
            "printable characters",
            field="session_id",
        )
    # Escaped, no part can hold the signs between the parts, so that no two sessions share a key.
    parts = (check_collection(collection), quote(tenant, safe=""), quote(session_id, safe=""))
    return "nearline:{" + "/".join(parts) + "}:session"


def recent_turns(turns: Sequence[Turn], max_tokens: int) -> list[Turn]:
    """Returns the newest turns whose questions and answers fit into so many tokens, oldest first.

    Where not even the newest turn fits, it comes with the beginning of its answer, since a
    follow-up question needs it most; with nothing where not even its question fits.
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
    return json.dumps(record).encode()


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
        f"what is kept of session {session_id!r} is not what this version of Nearline writes; "
        "forget it with nearline sessions delete, or go on under another id"
    )
