"""Scores of all items, as tests compare them with formulas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.blend import Generator
from retrieval.behaviour.history import History
from retrieval.protocols.scored_rows import ScoredRows


def dense(generator: Generator, history: History, items: int) -> NDArray[np.float32]:
    """Returns (items,) scores, 0 for items that the generator does not score."""
    return spread(generator.best(history, np.ones(items, np.bool_), items), items)


def spread(scored: ScoredRows, items: int) -> NDArray[np.float32]:
    """Returns (items,) scores, 0 for items without one."""
    scores = np.zeros(items, np.float32)
    scores[scored.rows] = scored.scores
    return scores


def of_all(scores: NDArray[np.float32]) -> ScoredRows:
    """Returns scores of all items."""
    return ScoredRows(np.arange(len(scores)), scores)
