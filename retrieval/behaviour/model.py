"""What a snapshot learned from interactions, apart from the tables that its shards hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.behaviour_shard import BehaviourShard
from retrieval.behaviour.blend import blend_scores
from retrieval.behaviour.features import UserCandidates
from retrieval.behaviour.history import History
from retrieval.behaviour.ranker import Ranker, build_rankers
from retrieval.behaviour.shard_tables import divide_tables
from retrieval.behaviour.tables import BehaviourTables, read_ranker_texts, read_tables
from retrieval.protocols.candidates import UNKNOWN, KeyedHistory, ShardCandidates
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows
from retrieval.protocols.snapshot import SnapshotRef


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourModel:
    """Ranks the candidates that shards find.

    kind_weights: Weights by kind of interaction; other kinds weigh 1.
    similar_debias: Discount for popularity in lists of items that go with others, 0..1.
    segments: Names of the segments that tables exist for.
    local: The tables, if this process serves them. Otherwise the shards of the snapshot do.
    """

    kind_weights: Mapping[str, float]
    similar_debias: float
    segments: Sequence[str] = ()
    local: BehaviourShard | None = None
    _weights: Mapping[bool, Sequence[float]] = field(repr=False)
    _debias: Mapping[bool, float] = field(repr=False)
    _rankers: Mapping[bool, Ranker] = field(repr=False)

    def debias(self, *, repeats: bool) -> float:
        """Returns the discount for popularity in lists for a user, 0..1."""
        return self._debias[repeats]

    def score_user(
        self, found: ShardCandidates, history: KeyedHistory, *, repeats: bool
    ) -> ScoredRows:
        """Returns the scores of a user's candidates, by number; all are positive.

        Args:
            found: The candidates of `generator_names.USER`, 150 of each source.
            history: The history that they were found for.
            repeats: Whether items of the history may be listed again.
        """
        ranker = self._rankers.get(repeats)
        if ranker is None:
            return blend_scores(found.scored, self._weights[repeats])
        known = found.events != UNKNOWN
        if not known.any():
            return NO_ROWS
        # Only whether two events are about one item matters here, so keys stand for numbers.
        numbers = np.unique(history.keys[known], return_inverse=True)[1].astype(np.int32)
        events = History(numbers, history.time_us[known], history.weight[known])
        return ranker.scores(UserCandidates(found.scored, found.numbers, found.columns), events)

    def blend_user(self, found: ShardCandidates, *, repeats: bool) -> ScoredRows:
        """Returns the scores of any items for a user, by number; all are positive.

        Without the ranker: it learned to order the best of all items, not those of a search.

        Args:
            found: As in `score_user`, or of some items alone.
        """
        ranker = self._rankers.get(repeats)
        weights = self._weights[repeats] if ranker is None else ranker.spec.weights
        return blend_scores(found.scored, weights)


def shard_depth(most: int, shards: int) -> int:
    """Returns how many items each shard finds, so that the best `most` of all are among them.

    Items are spread over shards at random, so the number of the best in one shard has a binomial
    distribution. Five deviations above its mean, and ten more, are exceeded once in 10^8 requests.
    """
    if shards == 1:
        return most
    mean = most / shards
    return min(most, int(mean + 5 * mean**0.5) + 10)


def load_behaviour_model(
    store: Store, snapshot: SnapshotRef, *, local: bool = False
) -> BehaviourModel | None:
    """Loads the behaviour model of a snapshot; blocks while files are fetched and compared.

    Args:
        local: Whether this process serves the tables, instead of the shards.
    Returns: None if the snapshot was built without interactions.
    Raises: SnapshotCorrupt: a file does not match the manifest or the other files.
    """
    manifest = snapshot.manifest
    if not manifest.HasField("behaviour"):
        return None
    if local:
        return build_behaviour_model(
            manifest.behaviour, read_tables(store, manifest), snapshot.snapshot_id
        )
    texts = read_ranker_texts(store, manifest)
    return _build(manifest.behaviour, texts, snapshot.snapshot_id)


def build_behaviour_model(
    card: snapshot_pb2.BehaviourCard, tables: BehaviourTables, snapshot_id: str = ""
) -> BehaviourModel:
    """Builds a model from its card and its tables, which this process serves.

    Raises: SnapshotCorrupt: the card lacks a blend, or a ranker is not supported.
    """
    shard = BehaviourShard(card, divide_tables(tables, 0, 1))
    return _build(card, tables.rankers, snapshot_id, shard)


def _build(
    card: snapshot_pb2.BehaviourCard,
    texts: Mapping[bool, str],
    snapshot_id: str,
    local: BehaviourShard | None = None,
) -> BehaviourModel:
    weights = {one.repeats: [part.weight for part in one.parts] for one in card.blends if one.parts}
    if len(weights) != 2:
        raise SnapshotCorrupt(
            f"the manifest of {snapshot_id} has blends for repeats {sorted(weights)}, and needs "
            "both; rebuild the snapshot with its interactions"
        )
    return BehaviourModel(
        kind_weights=dict(card.kind_weights),
        similar_debias=_checked_debias(card.similar_debias.value, snapshot_id),
        segments=tuple(card.segments),
        local=local,
        _weights=weights,
        # Older builds have no discount: 0.
        _debias={
            one.repeats: _checked_debias(one.debias.value, snapshot_id) for one in card.blends
        },
        _rankers=build_rankers(card, texts),
    )


def _checked_debias(value: float, snapshot_id: str) -> float:
    if not 0 <= value <= 1:
        raise SnapshotCorrupt(
            f"the manifest of {snapshot_id} has a discount for popularity of {value}; 0..1 is "
            "allowed; rebuild the snapshot with its interactions"
        )
    return value
