"""What a snapshot learned, as tests look at it: histories, and scores as a router computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.store.snapshot import Store
from retrieval.behaviour.behaviour_shard import BehaviourShard
from retrieval.behaviour.blend import DEPTH
from retrieval.behaviour.generator_names import USER
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.tables import read_tables
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    KeyedHistory,
    ShardCandidates,
)
from retrieval.protocols.scored_rows import ScoredRows
from retrieval.protocols.snapshot import read_current_snapshots
from tests.retrieval.behaviour.dense_scores import spread


def read_trained(store: Store) -> TrainedSnapshot:
    """Reads what the current snapshot of the collection "default" learned."""
    (snapshot,) = read_current_snapshots(store, ["default"])
    card = snapshot.manifest.behaviour
    return TrainedSnapshot.of(card, read_tables(store, snapshot.manifest))


def history_ids(trained: TrainedSnapshot, user: str) -> list[str]:
    """Returns the ids of the items that a user had, newest first; none for unknown users."""
    return list(_shard(trained).history(HistoryRequest(user)).ids)


def find_for_user(
    trained: TrainedSnapshot, user: str, *, repeats: bool, newest: int | None = None
) -> ShardCandidates:
    """Finds the candidates of a user of the snapshot, as shards do.

    Args:
        newest: Number of interactions that are known. Optional; None: all.
    """
    history = _history(trained, user, newest)
    return _shard(trained).find(CandidatesRequest([USER], history, DEPTH, repeats=repeats))


def score_user(
    trained: TrainedSnapshot, user: str, *, repeats: bool, newest: int | None = None
) -> ScoredRows:
    """Returns the scores of items for a user of the snapshot, by number, as a router does."""
    found = find_for_user(trained, user, repeats=repeats, newest=newest)
    return trained.model.score_user(found, _history(trained, user, newest), repeats=repeats)


def dense_scores(
    trained: TrainedSnapshot, generator: str, items: Sequence[str] = ()
) -> NDArray[np.float32]:
    """Returns the scores of all items by one generator, for somebody who just had some items.

    Args:
        generator: One of `generator_names`.
        items: Their ids.
    """
    count, total = len(items), len(trained.tables.ids)
    had = KeyedHistory(keys_of(items), np.zeros(count, np.int64), np.ones(count, np.float32))
    return spread(_shard(trained).find(CandidatesRequest([generator], had, total)).scored[0], total)


def _history(trained: TrainedSnapshot, user: str, newest: int | None) -> KeyedHistory:
    stored = _shard(trained).history(HistoryRequest(user))
    keys = keys_of(stored.ids)
    return KeyedHistory(keys[:newest], stored.time_us[:newest], stored.weight[:newest])


def _shard(trained: TrainedSnapshot) -> BehaviourShard:
    assert trained.model.local is not None, "the tables of the snapshot are in this process"
    return trained.model.local
