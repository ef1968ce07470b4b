"""Requests for the candidates of a list, and what shards answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter
from retrieval.protocols.scored_rows import ScoredRows
from retrieval.protocols.watermark import AppliedState, Watermark, merge_watermarks

# Whether the snapshot has the item of an event, and interactions with it.
UNKNOWN, UNTRAINED, TRAINED = 0, 1, 2


class PackedIds(Sequence[str]):
    """Ids in one block of bytes, which are decoded when they are read.

    Args:
        content: UTF-8 bytes of all ids.
        starts, ends: (n,) int64, the bytes of each id.
    """

    __slots__ = ("content", "ends", "starts")

    def __init__(self, content: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.content = content
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, ids: Sequence[str]) -> PackedIds:
        """Packs ids."""
        encoded = [one.encode() for one in ids]
        ends = np.cumsum([0, *map(len, encoded)])
        return cls(b"".join(encoded), ends[:-1], ends[1:])

    @classmethod
    def concatenate(cls, parts: Sequence[PackedIds]) -> PackedIds:
        """Returns the ids of all parts, in order."""
        shifts = np.cumsum([0, *(len(one.content) for one in parts)]).tolist()
        starts = [one.starts + shift for one, shift in zip(parts, shifts, strict=False)]
        ends = [one.ends + shift for one, shift in zip(parts, shifts, strict=False)]
        content = b"".join(one.content for one in parts)
        none = np.empty(0, np.int64)
        return cls(content, np.concatenate([none, *starts]), np.concatenate([none, *ends]))

    def take(self, places: NDArray[np.int64]) -> PackedIds:
        """Returns the ids at some positions; their bytes are shared."""
        return PackedIds(self.content, self.starts[places], self.ends[places])

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return list(PackedIds(self.content, self.starts[at], self.ends[at]))
        return self.content[int(self.starts[at]) : int(self.ends[at])].decode()

    def __iter__(self) -> Iterator[str]:
        content = self.content
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield content[start:end].decode()


NO_IDS = PackedIds.of(())
NO_KEYS = np.empty(0, np.uint64)


class KeyedHistory(NamedTuple):
    """The n interactions of a user, newest first, or the items that a list goes with.

    keys: (n,) uint64, see `retrieval.behaviour.item_keys`. time_us: (n,) int64, microseconds since
    1970. weight: (n,) float32 > 0. segments: Numbers of the segments that the user is in.
    """

    keys: NDArray[np.uint64]
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]
    segments: tuple[int, ...] = ()


NO_EVENTS = KeyedHistory(NO_KEYS, np.empty(0, np.int64), np.empty(0, np.float32))


class CandidatesRequest(NamedTuple):
    """Candidates to find.

    generators: Names of `retrieval.behaviour.generator_names`. history: What they read. most: Items
    that each generator finds, at most. repeats: Whether items of the history may be found. hidden:
    (m,) uint64, keys of items that are not found. hide_history: Whether no generator finds items of
    the history. now_us: Microseconds since 1970. filter: Items
    that do not match may be left out. trained_only: Whether events with items that have no
    interactions are ignored. reasons_for: (k,) uint64, keys of items whose reasons are asked for,
    instead of candidates. among: (a,) uint64, keys of the only items that are found; empty: all.
    """

    generators: Sequence[str]
    history: KeyedHistory
    most: int
    repeats: bool = False
    hidden: NDArray[np.uint64] = NO_KEYS
    hide_history: bool = False
    now_us: int = 0
    filter: Filter | None = None
    min_watermark: Watermark | None = None
    trained_only: bool = False
    reasons_for: NDArray[np.uint64] | None = None
    among: NDArray[np.uint64] = NO_KEYS


class ShardCandidates(NamedTuple):
    """Candidates that one shard found, or several together.

    events: (n,) uint8, UNKNOWN, UNTRAINED or TRAINED for each event of the history. scored: The
    best items of each generator, or of each source of a generator, by number. numbers: (u,) int64,
    all of these items, ascending. ids: Their ids. levels: (u,) float32, see `popularity_levels`.
    columns: (features, u) float32, see `ItemStatistics`; no features if no ranker reads them.
    reasons: For each item of `reasons_for`, see Recommendation in retrieval.proto; empty for items
    of other shards. total_count: Interactions with all items of the shards.
    """

    events: NDArray[np.uint8]
    scored: Sequence[ScoredRows]
    numbers: NDArray[np.int64]
    ids: PackedIds
    levels: NDArray[np.float32]
    columns: NDArray[np.float32]
    reasons: Sequence[Sequence[str]] = ()
    total_count: float = 0.0
    applied: AppliedState | None = None

    def ids_of(self, numbers: NDArray[np.int64]) -> PackedIds:
        """Returns the ids of some of the numbers."""
        return self.ids.take(np.searchsorted(self.numbers, numbers))

    def levels_of(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the levels of popularity of some of the numbers."""
        return self.levels[np.searchsorted(self.numbers, numbers)]


NO_CANDIDATES = ShardCandidates(
    np.empty(0, np.uint8),
    (),
    np.empty(0, np.int64),
    NO_IDS,
    np.empty(0, np.float32),
    np.empty((0, 0), np.float32),
)


# Does something with candidates, in the thread that found them.
UseCandidates: TypeAlias = Callable[[ShardCandidates], None]


class HistoryRequest(NamedTuple):
    """The user whose interactions to read, as the snapshot was trained on them."""

    user_id: str


class StoredHistory(NamedTuple):
    """The n interactions of a user that a snapshot was trained on, newest first.

    ids: Of the items. time_us: (n,) int64, microseconds since 1970. weight: (n,) float32 > 0.
    again: Ids of those that users have again.
    """

    ids: PackedIds
    time_us: NDArray[np.int64]
    weight: NDArray[np.float32]
    applied: AppliedState | None = None
    again: frozenset[str] = frozenset()

    def take(self, places: NDArray[np.int64]) -> StoredHistory:
        """Returns some of the interactions, in order."""
        return self._replace(
            ids=self.ids.take(places), time_us=self.time_us[places], weight=self.weight[places]
        )


NO_HISTORY = StoredHistory(NO_IDS, np.empty(0, np.int64), np.empty(0, np.float32))


def merge_candidates(parts: Sequence[ShardCandidates], most: int | None = None) -> ShardCandidates:
    """Returns the candidates of several shards as those of one.

    Args:
        parts: At least one, for one request.
        most: Items of each generator. Optional; None keeps all.
    """
    if len(parts) == 1:
        (only,) = parts
        # Shards of one server answer together, and each found as many.
        scored = only.scored if most is None else [one.best(most) for one in only.scored]
        return only._replace(scored=scored)
    numbers = np.concatenate([one.numbers for one in parts])
    order = np.argsort(numbers)
    return ShardCandidates(
        np.max([one.events for one in parts], axis=0),
        [_merged(scored, most) for scored in zip(*(one.scored for one in parts), strict=True)],
        numbers[order],
        PackedIds.concatenate([one.ids for one in parts]).take(order),
        np.concatenate([one.levels for one in parts])[order],
        _merged_columns(parts)[:, order],
        [
            next(filter(None, of_item), ())
            for of_item in zip(*(one.reasons for one in parts), strict=True)
        ],
        sum(one.total_count for one in parts),
        _merged_state([one.applied for one in parts if one.applied is not None]),
    )


def _merged_columns(parts: Sequence[ShardCandidates]) -> NDArray[np.float32]:
    # An answer without items does not say how many features there are.
    found = [one.columns for one in parts if len(one.numbers)]
    return np.concatenate(found, axis=1) if found else np.empty((0, 0), np.float32)


def _merged_state(states: Sequence[AppliedState]) -> AppliedState | None:
    if not states:
        return None
    return states[0]._replace(
        watermark=merge_watermarks(tuple(one.watermark for one in states)),
        stale=next((one.stale for one in states if one.stale), ""),
    )


def _merged(parts: Sequence[ScoredRows], most: int | None) -> ScoredRows:
    rows = np.concatenate([one.rows for one in parts])
    order = np.argsort(rows)
    merged = ScoredRows(rows[order], np.concatenate([one.scores for one in parts])[order])
    return merged if most is None else merged.best(most)
