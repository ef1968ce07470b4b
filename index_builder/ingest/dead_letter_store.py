"""Dead letters in Redis: listed, deleted, and read for requeueing; sources only if asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from index_builder.ingest import keys
from index_builder.ingest.codec import unpack_result, unpack_source
from index_builder.ingest.script_functions import FORGET
from index_builder.ingest.script_runner import NEEDED_BY, open_pipeline, run_script
from nearline import contract as c
from nearline.errors import NotFound
from retrieval.redis_client.connection import Redis, translate_redis_errors

# Bytes on a page, well below the 64 MiB of a message; a single letter may have 16 MiB.
PAGE_BYTES: Final = 24 << 20
# Letters scanned for one page; a page may be empty without being the last one.
_MAX_SCANNED = 2_000
_READ_AT_ONCE = 200
_EXPIRED_AT_ONCE = 1_000

Fields = Mapping[bytes, bytes]
_KEYS = [keys.META, keys.DEAD, keys.DEAD_SOURCES]

# Deletes dead letters.
# KEYS: meta, dead, sources. ARGV: letters. Replies with the number deleted.
_DELETE: Final = (
    FORGET
    + """
local deleted = 0
for _, letter in ipairs(ARGV) do deleted = deleted + forget(KEYS[1], KEYS[2], KEYS[3], letter) end
return deleted
"""
)

# Deletes the dead letters before a time.
# KEYS: meta, dead, sources. ARGV: milliseconds since 1970, maximum number of letters.
# Replies with the number deleted.
_EXPIRE: Final = (
    FORGET
    + """
local deleted = 0
while deleted < tonumber(ARGV[2]) do
  local oldest = redis.call('XRANGE', KEYS[2], '-', '(' .. ARGV[1] .. '-0', 'COUNT', 1)[1]
  if not oldest then break end
  deleted = deleted + forget(KEYS[1], KEYS[2], KEYS[3], oldest[1])
end
return deleted
"""
)


class DeadLetterStore:
    """Reads and deletes dead letters.

    Letters of earlier versions of the queue have their source among their fields.

    Args:
        client: Redis.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def page(
        self, after: str, matches: Mapping[bytes, str], limit: int, *, with_source: bool
    ) -> tuple[list[c.DeadLetter], str]:
        """Lists dead letters, oldest first.

        Args:
            after: Only letters after this one; all if empty.
            matches: Values that fields of a letter must have.
            limit: Maximum number of letters.
            with_source: Whether to include the submitted source.
        Returns: The letters, and the last one scanned; empty if there is no next page.
        """
        found: list[tuple[str, Fields]] = []
        scanned, size, last = 0, 0, after
        at_once = min(limit, _READ_AT_ONCE)
        rest = True
        while rest and scanned < _MAX_SCANNED and len(found) < limit:
            async with translate_redis_errors(NEEDED_BY):
                part: Any = await self._client.xrange(
                    keys.DEAD, f"({last}" if last else "-", count=at_once
                )
            rest = len(part) == at_once
            scanned += len(part)
            kept = await self._source_bytes(part) if with_source else [0] * len(part)
            for (entry, fields), source_bytes in zip(part, kept, strict=True):
                if all(fields[key].decode() == one for key, one in matches.items()):
                    size += len(fields[b"result"]) + source_bytes
                    full = len(found) == limit or (found and size > PAGE_BYTES)
                    if full:
                        return await self._letters_of(found, with_source=with_source), last
                    found.append((entry.decode(), fields))
                last = entry.decode()
        letters = await self._letters_of(found, with_source=with_source)
        return letters, last if rest else ""

    async def delete(self, letter_ids: Sequence[str]) -> int:
        """Deletes dead letters; returns the number deleted."""
        return int(await run_script(self._client, _DELETE, _KEYS, letter_ids))

    async def expire(self, before_ms: int) -> None:
        """Deletes the dead letters before a time, milliseconds since 1970."""
        deleted = _EXPIRED_AT_ONCE
        while deleted == _EXPIRED_AT_ONCE:
            deleted = await run_script(self._client, _EXPIRE, _KEYS, [before_ms, _EXPIRED_AT_ONCE])

    async def fields(self, letter_ids: Sequence[str]) -> dict[str, Fields]:
        """Returns the fields of letters. Raises: NotFound: one does not exist."""
        found = await self._existing(letter_ids)
        for letter_id in letter_ids:
            if letter_id not in found:
                raise no_letter(letter_id)
        return found

    async def owners(self, letter_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Returns tenant and collection of letters by id, without those that do not exist."""
        found = await self._existing(letter_ids)
        return {
            name: (fields[b"tenant"].decode(), fields[b"collection"].decode())
            for name, fields in found.items()
        }

    async def _existing(self, letter_ids: Sequence[str]) -> dict[str, Fields]:
        async with open_pipeline(self._client) as pipe:
            for one in letter_ids:
                pipe.xrange(keys.DEAD, one, one)
            replies = await pipe.execute()
        return {
            letter_id: entries[0][1]
            for letter_id, entries in zip(letter_ids, replies, strict=True)
            if entries
        }

    async def _source_bytes(self, part: Sequence[tuple[bytes, Fields]]) -> list[int]:
        """Returns the size of the source of each letter; 0 if it was dropped."""
        async with open_pipeline(self._client) as pipe:
            for entry, _ in part:
                pipe.hstrlen(keys.DEAD_SOURCES, entry)
            sizes = await pipe.execute()
        return [
            size or len(fields.get(b"source", b""))
            for size, (_, fields) in zip(sizes, part, strict=True)
        ]

    async def _letters_of(
        self, found: Sequence[tuple[str, Fields]], *, with_source: bool
    ) -> list[c.DeadLetter]:
        letters = [_letter(*one) for one in found]
        if not with_source or not found:
            return letters
        async with translate_redis_errors(NEEDED_BY):
            kept: Any = await self._client.hmget(keys.DEAD_SOURCES, [name for name, _ in found])
        sources = [
            fields.get(b"source") if one is None else one
            for one, (_, fields) in zip(kept, found, strict=True)
        ]
        return [
            one if source is None else replace(one, source=unpack_source(source))
            for one, source in zip(letters, sources, strict=True)
        ]


def no_letter(letter_id: str) -> NotFound:
    """Returns the error for a letter that does not exist."""
    return NotFound(
        f"there is no dead letter {letter_id!r}, so none was requeued. List them: nearline "
        "letters list"
    )


def _letter(letter_id: str, fields: Fields) -> c.DeadLetter:
    return c.DeadLetter(
        letter_id=letter_id,
        job_id=fields[b"job"].decode(),
        collection=fields[b"collection"].decode(),
        tenant=fields[b"tenant"].decode(),
        result=unpack_result(fields[b"result"]),
    )
