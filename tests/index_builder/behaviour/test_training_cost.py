"""The check of the memory of a training."""

from __future__ import annotations

import pytest

from index_builder.behaviour.ease import MOST_ITEMS
from index_builder.behaviour.sequence_trainer import sequence_seconds
from index_builder.behaviour.training import train_behaviour
from index_builder.behaviour.training_cost import (
    BLEND_S,
    DEBIAS_S,
    CandidateSeconds,
    TrainingProgress,
    check_memory,
    needed_bytes,
)
from index_builder.options.training_options import TrainingOptions
from nearline.errors import InvalidRequest
from tests.index_builder.behaviour.circular_walks import documents, walks
from tests.index_builder.behaviour.test_models_brute_force import drawn


def test_the_inverse_of_ease_grows_up_to_its_most_items() -> None:
    fits = needed_bytes(0, 10**6, MOST_ITEMS)
    assert needed_bytes(0, 10**6, MOST_ITEMS + 1) - fits == 1_500


def test_a_training_that_does_not_fit_names_the_remedy() -> None:
    rows = drawn(5, 9, 40)
    needed = needed_bytes(40, 5, 9)
    check_memory(rows, needed)
    with pytest.raises(InvalidRequest, match=r"40 interactions of 5 users.*--keep-days"):
        check_memory(rows, needed - 1)


def test_progress_is_told_in_whole_percent_and_leaves_one_for_the_tables() -> None:
    told: list[int] = []
    rows, windows = walks(), [walks(steps=8), walks(steps=7), walks(steps=6)]
    progress = TrainingProgress(rows, windows, told.append, ranks=False, repeats=True)
    seconds = CandidateSeconds.of(rows)
    progress.add(seconds.others)
    progress.add(0.0)
    total = seconds.total(repeats=True) + CandidateSeconds.of(windows[0]).total(repeats=True)
    total += 2 * BLEND_S + DEBIAS_S + sum(map(sequence_seconds, [rows, *windows]))
    assert sum(told) == int(100 * seconds.others / total) and all(one > 0 for one in told)
    progress.finish()
    assert sum(told) == 99
    progress.add(1.0)
    assert sum(told) == 99


def test_a_whole_training_tells_99_percent_whether_or_not_rankers_are_trained() -> None:
    told: list[int] = []
    learning = TrainingOptions(interactions=walks())
    train_behaviour(learning, documents(), 0, told.append)
    assert sum(told) == 99 and len(told) >= 5
