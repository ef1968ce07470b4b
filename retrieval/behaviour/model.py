"""What a router holds of a snapshot that learned from interactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import Blend, Generator
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.generator_spec import build_blend
from retrieval.behaviour.history import History
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
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
from retrieval.behaviour.user_histories import UserHistories
from retrieval.protocols.snapshot import SnapshotRef


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourModel:
    """What was learned of the items of a snapshot, by item number; never changes.

    factors_id: Hash of the factors, lower-case hex. kind_weights: By kind of interaction; others
        count 1.
    ids: By number, ascending: lower numbers first is the order of equal scores.
    trained: (items,) bool, had interactions. popularity: (items,) float32 >= 0, 0 where untrained:
        that which serves where nothing is known. counts: The same, plain: what decays may leave
        nothing of items that are had seldom. trending: The same, decayed within days.
    repeat_rate: (items,) float32, 0..1: share of an item's users who had it again.
    repeat_days: (items,) float32, median days until they did; 0: not known.
    similar: Scores what goes with the items of a history; no item goes with itself.
    beyond: What follows on the lists of `similar` where they are short, by the vector of a user who
        had the item; None: an older build wrote none.
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
    beyond: ItemLists | None
    factors: ItemFactors
    _blends: Mapping[bool, Blend] = field(repr=False)
    _rankers: Mapping[bool, Ranker] = field(repr=False)
    _numbers: Mapping[str, int] = field(repr=False)
    _histories: UserHistories = field(repr=False)

    def number_of(self, item_id: str) -> int | None:
        """Returns the number of an item; None: the snapshot does not have it."""
        return self._numbers.get(item_id)

    def numbers_of(self, item_ids: Iterable[str]) -> list[int]:
        """Returns the numbers of those items that the snapshot has, in order."""
        return [at for one in item_ids if (at := self.number_of(one)) is not None]

    def is_trained(self, item_id: str) -> bool:
        """Returns whether the snapshot has interactions of an item."""
        number = self.number_of(item_id)
        return number is not None and bool(self.trained[number])

    def history_of_items(self, item_ids: Iterable[str]) -> History:
        """Returns the trained ones among some items as a history of a single moment."""
        numbers = [self._numbers[one] for one in item_ids if self.is_trained(one)]
        count = len(numbers)
        return History(
            np.array(numbers, np.int32), np.zeros(count, np.int64), np.ones(count, np.float32)
        )

    def blend(self, *, repeats: bool) -> Blend:
        """Returns the blend for lists where what a user had may be shown again, or may not."""
        return self._blends[repeats]

    def ranker(self, *, repeats: bool) -> Ranker | None:
        """Returns what orders the best of a blend; None: nothing was better than the blend."""
        return self._rankers.get(repeats)

    def generators(self, *, repeats: bool) -> Sequence[Generator]:
        """Returns those that a list is made by: of the blend, and what a ranker looks at beside."""
        ranker = self.ranker(repeats=repeats)
        if ranker is None:
            return [part.generator for part in self.blend(repeats=repeats).parts]
        return [one.generator for one in ranker.features.sources]

    def history_of(self, user_id: str) -> History | None:
        """Returns all interactions of a user, newest first; None: nothing was learned of them."""
        return self._histories.of(user_id)

    def users(self) -> Iterator[str]:
        """Yields the users with a history, in order of id."""
        return iter(self._histories.users)


def load_behaviour_model(store: Store, snapshot: SnapshotRef) -> BehaviourModel | None:
    """Loads what a snapshot learned; blocks while files are fetched and compared.

    Returns: None where it learned nothing.
    Raises: SnapshotCorrupt: a file is not what the manifest says, or does not fit the others.
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
    """Puts together what a card says and what tables hold.

    Raises: SnapshotCorrupt: the card lacks a blend, or a ranker is none that is served here.
    """
    blends = {one.repeats: build_blend(one, tables) for one in card.blends if one.parts}
    if len(blends) != 2:
        raise SnapshotCorrupt(
            f"the manifest of {snapshot_id} has blends for repeats {sorted(blends)}, both are "
            "needed; rebuild the snapshot with its interactions"
        )
    popularity = tables.popularity
    counts = popularity[POPULARITY]
    # An older build knew neither what is trending nor what users have again.
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
        beyond=tables.lists.get(TAIL_LISTS),
        factors=tables.factors,
        _blends=blends,
        _rankers=build_rankers(card, tables),
        _numbers={one: number for number, one in enumerate(tables.ids)},
        _histories=tables.histories,
    )
