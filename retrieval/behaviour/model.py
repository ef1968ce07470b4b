"""The behaviour model of a snapshot: tables, blends and rankers trained on interactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import Blend, Generator
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.generator_spec import build_blend
from retrieval.behaviour.history import History, UserHistories
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity_discount import popularity_levels
from retrieval.behaviour.ranker import Ranker, build_rankers
from retrieval.behaviour.tables import (
    POPULARITY,
    REPEAT_DAYS,
    REPEAT_RATE,
    SESSIONS,
    TAIL_LISTS,
    TRENDING,
    BehaviourTables,
    read_tables,
)
from retrieval.protocols.snapshot import SnapshotRef


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourModel:
    """Immutable statistics of the items of a snapshot, by item number.

    factors_id: Hash of the factors, lower-case hex.
    kind_weights: Weights by kind of interaction; other kinds weigh 1.
    ids: By number, ascending. Items with equal scores are in order of number.
    trained: (items,) bool, whether an item has interactions.
    popularity: (items,) float32 >= 0, 0 if untrained; the fallback for unknown users.
    counts: Like popularity, but without decay, which may leave 0 for rare items.
    trending: Like popularity, but decayed within days.
    repeat_rate: (items,) float32, 0..1: share of an item's users who had it again.
    repeat_days: (items,) float32, median days until they did; 0 if unknown.
    similar: Scores the items that go with those of a history; no item goes with itself.
    similar_debias: Discount for popularity in lists of items that go with others, 0..1.
    levels: (items,) float32, see `popularity_levels`.
    tail_lists: Lists that extend the short lists of `similar`: items that suit a user who had only
        that item, by their factors. None if the build is too old to have them.
    """

    factors_id: str
    kind_weights: Mapping[str, float]
    ids: Sequence[str]
    trained: NDArray[np.bool_]
    popularity: NDArray[np.float32]
    counts: NDArray[np.float32]
    trending: NDArray[np.float32]
    repeat_rate: NDArray[np.float32]
    repeat_days: NDArray[np.float32]
    similar: ListGenerator
    similar_debias: float
    levels: NDArray[np.float32]
    tail_lists: ItemLists | None
    factors: ItemFactors
    _blends: Mapping[bool, Blend] = field(repr=False)
    _debias: Mapping[bool, float] = field(repr=False)
    _rankers: Mapping[bool, Ranker] = field(repr=False)
    _numbers: Mapping[str, int] = field(repr=False)
    _histories: UserHistories = field(repr=False)

    def number_of(self, item_id: str) -> int | None:
        """Returns the number of an item, or None if the snapshot does not have it."""
        return self._numbers.get(item_id)

    def numbers_of(self, item_ids: Iterable[str]) -> list[int]:
        """Returns the numbers of the items that the snapshot has, in the given order."""
        return [number for one in item_ids if (number := self.number_of(one)) is not None]

    def is_trained(self, item_id: str) -> bool:
        """Returns whether the snapshot has interactions of an item."""
        number = self.number_of(item_id)
        return number is not None and bool(self.trained[number])

    def history_of_items(self, item_ids: Iterable[str]) -> History:
        """Returns a history of the trained ones among some items, all at one time."""
        numbers = [self._numbers[one] for one in item_ids if self.is_trained(one)]
        count = len(numbers)
        return History(
            np.array(numbers, np.int32), np.zeros(count, np.int64), np.ones(count, np.float32)
        )

    def blend(self, *, repeats: bool) -> Blend:
        """Returns the blend for lists that may, or may not, repeat items that the user had."""
        return self._blends[repeats]

    def ranker(self, *, repeats: bool) -> Ranker | None:
        """Returns the ranker of a blend, or None if no ranker was better than the blend alone."""
        return self._rankers.get(repeats)

    def debias(self, *, repeats: bool) -> float:
        """Returns the discount for popularity in lists for a user, 0..1."""
        return self._debias[repeats]

    def generators(self, *, repeats: bool) -> Sequence[Generator]:
        """Returns the generators of the blend, or those of the ranker's features."""
        ranker = self.ranker(repeats=repeats)
        if ranker is None:
            return [part.generator for part in self.blend(repeats=repeats).parts]
        return [one.generator for one in ranker.features.sources]

    def history_of(self, user_id: str) -> History | None:
        """Returns the interactions of a user, newest first, or None if the user has none."""
        return self._histories.of(user_id)

    def users(self) -> Iterator[str]:
        """Yields the users with a history, in order of id."""
        return iter(self._histories.users)


def load_behaviour_model(store: Store, snapshot: SnapshotRef) -> BehaviourModel | None:
    """Loads the behaviour model of a snapshot; blocks while files are fetched and compared.

    Returns: None if the snapshot was built without interactions.
    Raises: SnapshotCorrupt: a file does not match the manifest or the other files.
    """
    manifest = snapshot.manifest
    if not manifest.HasField("behaviour"):
        return None
    return build_behaviour_model(
        manifest.behaviour, read_tables(store, manifest), snapshot.snapshot_id
    )


def build_behaviour_model(
    card: snapshot_pb2.BehaviourCard, tables: BehaviourTables, snapshot_id: str = ""
) -> BehaviourModel:
    """Builds a model from its card and its tables.

    Raises: SnapshotCorrupt: the card lacks a blend, or a ranker is not supported.
    """
    blends = {one.repeats: build_blend(one, tables) for one in card.blends if one.parts}
    if len(blends) != 2:
        raise SnapshotCorrupt(
            f"the manifest of {snapshot_id} has blends for repeats {sorted(blends)}, and needs "
            "both; rebuild the snapshot with its interactions"
        )
    popularity = tables.popularity
    counts = popularity[POPULARITY]
    # Older builds have no trends and no repeat statistics.
    unknown = np.zeros(len(counts), np.float32)
    return BehaviourModel(
        factors_id=card.factors_id,
        kind_weights=dict(card.kind_weights),
        ids=tables.ids,
        trained=tables.interactions > 0,
        popularity=popularity[card.popularity_table or POPULARITY],
        counts=counts,
        trending=popularity.get(TRENDING, counts),
        repeat_rate=popularity.get(REPEAT_RATE, unknown),
        repeat_days=popularity.get(REPEAT_DAYS, unknown),
        similar=ListGenerator(tables.lists[SESSIONS]),
        similar_debias=_checked_debias(card.similar_debias.value, snapshot_id),
        levels=popularity_levels(counts),
        tail_lists=tables.lists.get(TAIL_LISTS),
        factors=tables.factors,
        _blends=blends,
        # Older builds have no discount: 0.
        _debias={
            one.repeats: _checked_debias(one.debias.value, snapshot_id) for one in card.blends
        },
        _rankers=build_rankers(card, tables),
        _numbers={one: number for number, one in enumerate(tables.ids)},
        _histories=tables.histories,
    )


def _checked_debias(value: float, snapshot_id: str) -> float:
    if not 0 <= value <= 1:
        raise SnapshotCorrupt(
            f"the manifest of {snapshot_id} has a discount for popularity of {value}; 0..1 is "
            "allowed; rebuild the snapshot with its interactions"
        )
    return value
