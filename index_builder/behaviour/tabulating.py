"""The tables that a snapshot carries, of candidates that were trained and of interactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidates import Candidate
from index_builder.behaviour.matrix import item_counts
from index_builder.interactions.records import Interactions
from retrieval.behaviour.factors import FactorGenerator, ItemFactors
from retrieval.behaviour.histories import Histories
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity import BuyAgain, Popularity
from retrieval.behaviour.tables import FACTORS, POPULARITY, SESSIONS, Tables

_ALWAYS = {POPULARITY, SESSIONS, FACTORS}


def tables_of(rows: Interactions, candidates: Sequence[Candidate], chosen: set[str]) -> Tables:
    """Gives the tables that blends read, and those that are always there."""
    popularity: dict[str, NDArray[np.float32]] = {}
    lists: dict[str, ItemLists] = {}
    factors: ItemFactors | None = None
    for one in candidates:
        generator = one.generator
        if one.table not in chosen | _ALWAYS:
            continue
        if isinstance(generator, ListGenerator):
            lists[one.table] = generator.lists
        elif isinstance(generator, FactorGenerator):
            factors = generator.factors
        else:
            assert isinstance(generator, Popularity | BuyAgain), "no other has a table"
            popularity[one.table] = generator.of_items
    assert factors is not None, "ALS is always trained"
    return Tables(rows.items, item_counts(rows), popularity, lists, factors, histories_of(rows))


def histories_of(rows: Interactions) -> Histories:
    """Gives the interactions of each user; of rows of one time the later in the file is the newer.

    Args:
        rows: Users numbered in order of their ids, each with a row.
    """
    ordered = rows.some(np.lexsort((np.arange(len(rows.user))[::-1], -rows.time_us, rows.user)))
    counts = np.bincount(ordered.user)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return Histories(rows.users, starts, ordered.item, ordered.time_us, ordered.weight)
