"""Builds the behaviour tables of a snapshot from trained candidates and interactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.ranker_dataset import item_tables
from index_builder.behaviour.user_item_matrix import item_counts
from index_builder.interactions.records import Interactions
from retrieval.behaviour.factors import FactorGenerator, ItemFactors
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.segments import SEGMENT_LIFTS
from retrieval.behaviour.sequences import SEQUENCE, SequenceGenerator, SequenceModel
from retrieval.behaviour.table_files import FACTORS
from retrieval.behaviour.tables import (
    ITEM_STATISTICS,
    POPULARITY,
    SESSIONS,
    BehaviourTables,
)

_ALWAYS = {POPULARITY, SESSIONS, FACTORS}


def build_tables(
    rows: Interactions, candidates: Sequence[CandidateGenerator], chosen: set[str]
) -> BehaviourTables:
    """Returns the tables in `chosen`, and those that every snapshot has."""
    lists: dict[str, ItemLists] = {}
    factors: ItemFactors | None = None
    sequences: SequenceModel | None = None
    for one in candidates:
        generator = one.generator
        if one.table not in chosen | _ALWAYS:
            continue
        if isinstance(generator, ListGenerator):
            lists[one.table] = generator.lists
        elif isinstance(generator, FactorGenerator):
            # Other items are added, so their order is found anew where they are served.
            factors = generator.factors._replace(own=None)
        elif isinstance(generator, SequenceGenerator):
            sequences = generator.model._replace(own=None)
    assert factors is not None, "ALS is always trained"
    carried = chosen.union(_ALWAYS, ITEM_STATISTICS, (SEGMENT_LIFTS,))
    popularity = {name: table for name, table in item_tables(rows).items() if name in carried}
    known = {*popularity, *lists, FACTORS, SEQUENCE}
    assert chosen <= known, "every other generator reads a table of items"
    return BehaviourTables(
        rows.items,
        item_counts(rows),
        popularity,
        lists,
        factors,
        build_histories(rows),
        sequences=sequences,
    )


def build_histories(rows: Interactions) -> UserHistories:
    """Returns the history of each user; with equal times, the later row in the file is newer.

    Args:
        rows: Users numbered in order of their ids, each with at least one row.
    """
    ordered = rows.by_time()
    counts = np.bincount(ordered.user)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    # Each user's rows backwards.
    ends = np.repeat(starts[:-1] + starts[1:] - 1, counts)
    ordered = ordered.some(ends - np.arange(len(ends)))
    return UserHistories(rows.users, starts, ordered.item, ordered.time_us, ordered.weight)
