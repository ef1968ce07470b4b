"""Remapped tables keep the entries of the remaining items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, strategies as st

from index_builder.behaviour.id_remap import map_ids, remap_tables
from index_builder.behaviour.training import train_behaviour
from index_builder.options.training_options import TrainingOptions
from retrieval.behaviour.history import History
from retrieval.behaviour.item_lists import ItemLists
from tests.index_builder.behaviour.circular_walks import documents, walks

BEFORE = train_behaviour(
    TrainingOptions(interactions=walks(25)), documents(), 0, lambda steps: None
).tables
_NAMES = st.sets(st.sampled_from([*documents(14), "a", "i05b", "z"]), min_size=1)


@given(_NAMES)
def test_remaining_items_keep_their_entries(kept: set[str]) -> None:
    ids = sorted(kept)
    after = remap_tables(BEFORE, map_ids(BEFORE.ids, ids), ids)
    both = [one for one in ids if one in BEFORE.ids]
    new = [ids.index(one) for one in both]
    old = [BEFORE.ids.index(one) for one in both]
    others = [number for number, one in enumerate(ids) if one not in BEFORE.ids]
    assert after.ids == ids
    assert np.array_equal(after.interactions[new], BEFORE.interactions[old])
    assert np.array_equal(after.factors.vectors[new], BEFORE.factors.vectors[old])
    assert np.array_equal(after.factors.gram, BEFORE.factors.gram)
    assert not after.interactions[others].any() and not after.factors.vectors[others].any()
    for name, table in BEFORE.popularity.items():
        assert np.array_equal(after.popularity[name][new], table[old])
        assert not after.popularity[name][others].any()
    for name, lists in BEFORE.lists.items():
        made = _listed(after.lists[name], ids)
        assert made == {
            pair: score for pair, score in _listed(lists, BEFORE.ids).items() if set(pair) <= kept
        }
    for user in BEFORE.histories.users:
        expected = [one for one in _entries(BEFORE.ids, BEFORE.histories.of(user)) if one[0] in ids]
        assert _entries(ids, after.histories.of(user)) == expected
        assert (user in after.histories.users) == bool(expected)


def _listed(lists: ItemLists, ids: Sequence[str]) -> dict[tuple[str, str], float]:
    """Returns the scores of all pairs, list after list; best first in each."""
    found: dict[tuple[str, str], float] = {}
    for number, one in enumerate(ids):
        others, scores = lists.of(number)
        assert (np.diff(scores) <= 0).all()
        found |= {(one, ids[at]): score for at, score in zip(others, scores.tolist(), strict=True)}
    return found


def _entries(ids: Sequence[str], history: History | None) -> list[tuple[str, int, float]]:
    if history is None:
        return []
    names = [ids[number] for number in history.items]
    return list(zip(names, history.time_us.tolist(), history.weight.tolist(), strict=True))
