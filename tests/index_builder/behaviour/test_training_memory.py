"""The check of the memory of a training."""

from __future__ import annotations

import pytest

from index_builder.behaviour.ease import MOST_ITEMS
from index_builder.behaviour.training_memory import check_memory, needed_bytes
from nearline.errors import InvalidRequest
from tests.index_builder.behaviour.test_models_brute_force import drawn


def test_the_inverse_of_ease_counts_only_where_it_is_computed() -> None:
    fits = needed_bytes(0, 10**6, MOST_ITEMS)
    beyond = needed_bytes(0, 10**6, MOST_ITEMS + 1)
    assert fits - beyond == 20 * MOST_ITEMS**2 - 1_500


def test_a_training_that_does_not_fit_names_the_remedy() -> None:
    rows = drawn(5, 9, 40)
    needed = needed_bytes(40, 5, 9)
    check_memory(rows, needed)
    with pytest.raises(InvalidRequest, match=r"40 interactions of 5 users.*--keep-days"):
        check_memory(rows, needed - 1)
