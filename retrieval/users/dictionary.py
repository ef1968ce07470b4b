"""The dictionary of a collection, which numbers item ids and kinds, the same for all routers.

Redis assigns the numbers, and each process caches those that it meets. If Redis loses its content,
it creates a dictionary with another id, and the cache is dropped.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import Durability
from retrieval.users import lua_scripts
from retrieval.users.codec import ID_BYTES, EncodedHistory, unpack
from retrieval.users.keys import dictionary_keys
from retrieval.users.records import NEEDED_BY, EventColumns, UserEvent


class DictionaryEntries:
    """The cached entries of one dictionary.

    id: 4 bytes; b"" before the first. item_numbers, kind_numbers: By name. items, kinds: By number.
    """

    __slots__ = ("id", "item_numbers", "items", "kind_numbers", "kinds")

    def __init__(self, dictionary_id: bytes) -> None:
        self.id = dictionary_id
        self.item_numbers: dict[str, int] = {}
        self.kind_numbers: dict[str, int] = {}
        self.items: dict[int, str] = {}
        self.kinds: dict[int, str] = {}

    def knows(self, items: Iterable[str], kinds: Iterable[str]) -> bool:
        """Returns whether the numbers of all of these names are cached."""
        return all(map(self.item_numbers.__contains__, items)) and all(
            map(self.kind_numbers.__contains__, kinds)
        )

    def reads(self, history: EncodedHistory) -> bool:
        """Returns whether the names of all numbers of a history are cached."""
        return self.items.keys() >= set(history.items) and self.kinds.keys() >= set(history.kinds)

    def add(self, items: Iterable[tuple[str, int]], kinds: Iterable[tuple[str, int]]) -> None:
        """Adds names with their numbers."""
        for name, number in items:
            self.item_numbers[name], self.items[number] = number, name
        for name, number in kinds:
            self.kind_numbers[name], self.kinds[number] = number, name

    def events(self, history: EncodedHistory) -> Sequence[UserEvent]:
        """Returns events with their names. Raises: KeyError: a name is not cached."""
        return EventColumns(
            list(map(self.items.__getitem__, history.items)),
            history.seconds,
            list(map(self.kinds.__getitem__, history.kinds)),
            history.weights,
        )


class Dictionary:
    """The dictionary of one collection."""

    def __init__(self, client: Redis, durability: Durability, collection: str) -> None:
        self._client = client
        self._durability = durability
        self._keys = dictionary_keys(collection)
        self._names = DictionaryEntries(b"")

    async def number(
        self, items: Collection[str], kinds: Collection[str], *, refresh: bool = False
    ) -> DictionaryEntries:
        """Returns entries with durable numbers for some names.

        Args:
            items, kinds: The names.
            refresh: Read Redis even if all names are cached.
        Raises: NotReady.
        """
        names = self._names
        if names.id and not refresh and names.knows(items, kinds):
            return names
        tagged = [*("i" + name for name in items), *("k" + name for name in kinds)]
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            pipe.eval(
                lua_scripts.NUMBER,
                len(self._keys),
                *self._keys,
                secrets.token_hex(ID_BYTES),
                *tagged,
            )
            # Cache only durable numbers: Redis could lose numbers that are not durable, and assign
            # them again.
            pipe.execute_command(*self._durability.command)
            reply, kept = await pipe.execute(raise_on_error=False)
            if isinstance(reply, Exception):
                raise reply
        self._durability.check_reply(kept)
        found, *numbers = reply
        names = self._of(found)
        names.add(
            zip(items, numbers[: len(items)], strict=True),
            zip(kinds, numbers[len(items) :], strict=True),
        )
        return names

    async def events(self, blobs: Sequence[bytes]) -> list[Sequence[UserEvent]]:
        """Decodes histories; one whose dictionary Redis has lost has no events.

        Raises: NotReady.
        """
        packed = [unpack(blob) for blob in blobs]
        names = self._names
        if all(dictionary_id == names.id for dictionary_id, _ in packed):
            # A name that is not cached is read from Redis below.
            with contextlib.suppress(KeyError):
                return [names.events(history) for _, history in packed]
        names = await self._name([history for _, history in packed])
        return [
            names.events(history) if dictionary_id == names.id and names.reads(history) else ()
            for dictionary_id, history in packed
        ]

    async def _name(self, histories: Sequence[EncodedHistory]) -> DictionaryEntries:
        """Reads the id of the dictionary and all names of some histories from Redis."""
        items = sorted({number for one in histories for number in one.items})
        kinds = sorted({number for one in histories for number in one.kinds})
        keys = (self._keys.dictionary, self._keys.items, self._keys.kinds)
        async with translate_redis_errors(NEEDED_BY):
            reply: Any = await self._client.eval(
                lua_scripts.NAME, len(keys), *keys, len(items), *items, *kinds
            )
        found, *replies = reply
        names = self._of(found)
        named = list(zip(replies, [*items, *kinds], strict=True))
        pairs = [(name.decode(), number) if name else None for name, number in named]
        names.add(filter(None, pairs[: len(items)]), filter(None, pairs[len(items) :]))
        return names

    def _of(self, found: bytes | None) -> DictionaryEntries:
        """Returns the cached entries of a dictionary, which are empty if it is new."""
        dictionary_id = bytes.fromhex((found or b"").decode())
        if dictionary_id != self._names.id:
            self._names = DictionaryEntries(dictionary_id)
        return self._names
