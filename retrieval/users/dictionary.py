"""The dictionary of a collection, which numbers item ids and kinds, the same for all routers.

Redis assigns the numbers, and each process caches those that it meets. A dictionary that is older
than any history, or full, is replaced by one with another id. Its names are kept as long as a
history may use them; the next write of a history encodes it with the current dictionary. If Redis
loses a dictionary, the histories that use it are empty.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nearline.errors import FeedBlocked, NotReady
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.durability import RETRY_AFTER_S, Durability
from retrieval.users import lua_scripts
from retrieval.users.codec import ID_BYTES, EncodedHistory, PackedHistory, unpack
from retrieval.users.keys import dictionary_keys
from retrieval.users.records import ALL_EXIST, NEEDED_BY, EventColumns, MadeUp, UserEvent

# Names that a dictionary holds before it is replaced: about 300 MB of Redis with ids of 20 bytes.
MAX_NAMES = 2_000_000
# A process asks at least this often which dictionary is current. Histories may be written with a
# replaced one for so long, and names are kept for _GRACE_S longer than histories because of it.
_CHECK_S = 3_600.0
_GRACE_S = 86_400
# Dictionaries whose names a process caches: the current one, and those of histories not written
# since.
_CACHED = 3
# Names in one script, which Redis runs in a few milliseconds.
_NAMES_PER_CALL = 4_096
_ATTEMPTS = 8
# Of the names of a dictionary, those that a tenant may make up.
_TENANT_SHARE = 1 / 8
_FULL = (
    "nothing was recorded: tenant {tenant!r} has named {most:,} items and kinds that do not exist, "
    "as many as it may; add the items first, or let an operator free the names (operations guide)"
)


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

    def translate(self, history: EncodedHistory, target: DictionaryEntries) -> EncodedHistory:
        """Returns a history encoded with another dictionary.

        Raises: KeyError: a name or a number is not cached.
        """
        return history._replace(
            items=[target.item_numbers[self.items[number]] for number in history.items],
            kinds=[target.kind_numbers[self.kinds[number]] for number in history.kinds],
        )


class Encoding(NamedTuple):
    """The current dictionary, and the replaced ones of some histories, by id."""

    names: DictionaryEntries
    replaced: Mapping[bytes, DictionaryEntries]


class Dictionary:
    """The dictionary of one collection.

    Args:
        client: Redis.
        durability: Durability that uses the same client.
        collection: The collection.
        kept_s: How long histories are kept; a dictionary is replaced once it is older.
        max_names: Names after which a dictionary is replaced earlier; the last call may add more.
    """

    def __init__(
        self,
        client: Redis,
        durability: Durability,
        collection: str,
        kept_s: int,
        max_names: int = MAX_NAMES,
    ) -> None:
        self._client = client
        self._durability = durability
        self._keys = dictionary_keys(collection)
        self._kept_s = kept_s
        self._max_names = max_names
        self._names = DictionaryEntries(b"")
        self._checked_at = -_CHECK_S
        # By id, least recently loaded first.
        self._cached: dict[bytes, DictionaryEntries] = {}

    async def number(
        self,
        items: Collection[str],
        kinds: Collection[str],
        *,
        refresh: bool = False,
        made_up: MadeUp = ALL_EXIST,
    ) -> DictionaryEntries:
        """Returns entries of the current dictionary with durable numbers for some names.

        Args:
            items, kinds: The names; at least one in all.
            refresh: Read Redis even if all names are cached.
            made_up: Which of the items do not exist. Optional.
        Raises: NotReady. FeedBlocked: the tenant has made up too many names.
        """
        names = self._names
        checked = time.monotonic() < self._checked_at + _CHECK_S
        if names.id and checked and not refresh and names.knows(items, kinds):
            return names
        tagged = ["u" + name if name in made_up.items else "i" + name for name in items]
        tagged += ["k" + name for name in kinds]
        for _ in range(_ATTEMPTS):
            asked_at = time.monotonic()
            ids, numbers = await self._number(tagged, made_up.tenant)
            if len(ids) == 1:
                names = self._entries(*ids)
                names.add(
                    zip(items, numbers[: len(items)], strict=True),
                    zip(kinds, numbers[len(items) :], strict=True),
                )
                self._names, self._checked_at = names, asked_at
                return names
        raise NotReady(
            f"the dictionary of item ids was replaced {_ATTEMPTS} times while {len(tagged)} names "
            "were looked up; nothing was recorded: send fewer interactions at once",
            retry_after_s=RETRY_AFTER_S,
        )

    async def _number(self, tagged: Sequence[str], tenant: str) -> tuple[set[bytes], list[int]]:
        """Returns the number of each name, and the ids of the dictionaries that they are from."""
        known, most = self._names.id, round(_TENANT_SHARE * self._max_names)
        keys = (*self._keys, *self._keys.retired(known))
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            for start in range(0, len(tagged), _NAMES_PER_CALL):
                pipe.eval(
                    lua_scripts.NUMBER,
                    len(keys),
                    *keys,
                    known.hex(),
                    secrets.token_hex(ID_BYTES),
                    self._kept_s,
                    _GRACE_S,
                    self._max_names,
                    tenant,
                    most,
                    *tagged[start : start + _NAMES_PER_CALL],
                )
            # Cache only durable numbers: Redis could lose numbers that are not durable, and assign
            # them again.
            replies, kept = await self._durability.execute(pipe)
            for reply in replies:
                if isinstance(reply, Exception):
                    if str(reply).startswith("QUOTA"):
                        raise FeedBlocked(_FULL.format(tenant=tenant, most=most))
                    raise reply
        self._durability.check_reply(kept)
        ids = {bytes.fromhex(reply[0].decode()) for reply in replies}
        return ids, [number for reply in replies for number in reply[1:]]

    async def encoding(
        self,
        histories: Sequence[PackedHistory],
        items: Collection[str],
        kinds: Collection[str],
        *,
        refresh: bool = False,
        made_up: MadeUp = ALL_EXIST,
    ) -> Encoding:
        """Returns what is needed to encode histories and new names with the current dictionary.

        Args:
            histories: Existing histories. Those that a lost dictionary encodes have no names.
            items, kinds: New names.
            refresh, made_up: As for `number`.
        Raises: As `number`.
        """
        replaced: dict[bytes, DictionaryEntries] = {}
        # Each turn but the last one adds a dictionary that one of the histories uses.
        while True:
            names = await self.number(items, kinds, refresh=refresh, made_up=made_up)
            # The dictionary may have been replaced just now, with that of any history.
            others = [one for one in histories if one.dictionary_id not in {names.id, *replaced}]
            if not others:
                return Encoding(names, replaced)
            replaced |= await self.load(others)
            more_items, more_kinds = dict.fromkeys(items), dict.fromkeys(kinds)
            for dictionary_id, history in others:
                entries = replaced[dictionary_id]
                if entries.reads(history):
                    more_items |= dict.fromkeys(map(entries.items.__getitem__, history.items))
                    more_kinds |= dict.fromkeys(map(entries.kinds.__getitem__, history.kinds))
            items, kinds, refresh = more_items, more_kinds, False

    async def events(self, blobs: Sequence[bytes]) -> list[Sequence[UserEvent]]:
        """Decodes histories; one whose dictionary Redis has lost has no events.

        Raises: NotReady.
        """
        packed = [unpack(blob) for blob in blobs]
        # A dictionary or a name that is not cached is read from Redis below.
        with contextlib.suppress(KeyError):
            return [self._cached[one.dictionary_id].events(one.history) for one in packed]
        entries = await self.load(packed)
        return [
            entries[dictionary_id].events(history) if entries[dictionary_id].reads(history) else ()
            for dictionary_id, history in packed
        ]

    async def load(self, histories: Iterable[PackedHistory]) -> Mapping[bytes, DictionaryEntries]:
        """Returns the dictionaries of histories by id, with all names that still exist.

        Raises: NotReady.
        """
        wanted: dict[bytes, list[EncodedHistory]] = {}
        for dictionary_id, history in histories:
            wanted.setdefault(dictionary_id, []).append(history)
        found = {one: self._entries(one) for one in wanted}
        for dictionary_id, entries in found.items():
            items = {number for one in wanted[dictionary_id] for number in one.items}
            kinds = {number for one in wanted[dictionary_id] for number in one.kinds}
            await self._name(
                entries, sorted(items - entries.items.keys()), sorted(kinds - entries.kinds.keys())
            )
        return found

    async def _name(
        self, entries: DictionaryEntries, items: Sequence[int], kinds: Sequence[int]
    ) -> None:
        """Reads the names of numbers from Redis; those that do not exist stay unknown."""
        current = self._keys
        keys = (current.dictionary, current.items, current.kinds, *current.retired(entries.id))
        numbers = [*items, *kinds]
        if not numbers:
            return
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            for start in range(0, len(numbers), _NAMES_PER_CALL):
                part = numbers[start : start + _NAMES_PER_CALL]
                pipe.eval(
                    lua_scripts.NAME,
                    len(keys),
                    *keys,
                    entries.id.hex(),
                    max(0, len(items) - start),
                    *part,
                )
            replies: Any = await pipe.execute()
        names = [name for reply in replies for name in reply]
        named = list(zip(names, numbers, strict=True))
        entries.add(_decode(named[: len(items)]), _decode(named[len(items) :]))

    def _entries(self, dictionary_id: bytes) -> DictionaryEntries:
        """Returns the cached entries of a dictionary, which are empty if it is new."""
        entries = self._cached.pop(dictionary_id, None) or DictionaryEntries(dictionary_id)
        self._cached[dictionary_id] = entries
        if len(self._cached) > _CACHED:
            del self._cached[next(iter(self._cached))]
        return entries


def _decode(named: Sequence[tuple[bytes | None, int]]) -> list[tuple[str, int]]:
    return [(name.decode(), number) for name, number in named if name is not None]
