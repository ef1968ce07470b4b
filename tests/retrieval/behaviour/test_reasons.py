"""Reasons name the items of a history that speak for an item."""

from __future__ import annotations

import numpy as np

from nearline.times import DAY_US
from retrieval.behaviour.history import History, Recency
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.reasons import HistoryReasons, history_reasons


def test_interactions_that_count_nothing_any_more_are_no_reason() -> None:
    # Item 0 is on the list of item 1, which the user had 20 years ago: exp(-122) is 0 as float32.
    lists = ItemLists(np.array([0, 0, 1, 1]), np.zeros(1, np.int32), np.ones(1, np.float32))
    history = History(
        np.array([2, 1], np.int32), np.array([7_300 * DAY_US, 0]), np.ones(2, np.float32)
    )
    old = ListGenerator(lists, Recency(days=60.0))
    assert history_reasons(0, 0, history, [old], trained=True) == HistoryReasons(
        False, [], ("popular",)
    )
    found = history_reasons(0, 0, history, [old, ListGenerator(lists)], trained=True)
    assert found == HistoryReasons(False, [1], ())
