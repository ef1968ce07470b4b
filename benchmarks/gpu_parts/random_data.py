"""Seeded vectors and texts."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 1 << 16
# Vectors of texts vary in about as many directions, and lie in clusters; a graph over vectors that
# are random in all directions finds little, whoever built it.
_DIRECTIONS, _CLUSTERS = 40, 512
_SPREAD, _NOISE = 1.0, 0.2
# Each is one token of MiniLM's vocabulary.
_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world"),
    *("school", "state", "family", "student", "group", "country", "problem", "hand", "part"),
    *("place", "case", "week", "company", "system", "program", "question", "work", "government"),
    *("number", "night", "point", "home", "water", "room", "mother", "area", "money", "story"),
    *("fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue"),
)
# A text begins and ends with a token of the model.
_MARKS = 2
_QUERIES = 1 << 40


def unit_vectors(count: int, dim: int, seed: int, block: int = _QUERIES) -> NDArray[np.float32]:
    """Returns random vectors of unit length, in all directions: (count, dim) float32.

    Args:
        block: Number of a block; each has its own vectors. The default is that of queries.
    """
    drawn = np.random.default_rng([seed, block]).standard_normal((count, dim), np.float32)
    return _scaled(drawn)


def clustered_vectors(
    count: int, dim: int, seed: int, block: int = _QUERIES
) -> NDArray[np.float32]:
    """Returns vectors of unit length in 512 clusters that vary in 40 directions."""
    shape = np.random.default_rng(seed)
    centres = shape.standard_normal((_CLUSTERS, _DIRECTIONS), np.float32)
    directions = shape.standard_normal((_DIRECTIONS, dim), np.float32) / np.float32(dim**0.5)
    rng = np.random.default_rng([seed, block])
    places = centres[rng.integers(0, _CLUSTERS, count)]
    places += np.float32(_SPREAD) * rng.standard_normal(places.shape, np.float32)
    noise = rng.standard_normal((count, dim), np.float32)
    return _scaled(places @ directions + np.float32(_NOISE) * noise)


def blocks(
    make: Callable[[int, int, int, int], NDArray[np.float32]], rows: int, dim: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yields vectors in blocks of 65,536 rows, in order; all cores draw them.

    Args:
        make: `unit_vectors` or `clustered_vectors`.
    """
    cores = len(os.sched_getaffinity(0))
    waiting: deque[Future[NDArray[np.float32]]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for number, first in enumerate(range(0, rows, BLOCK_ROWS)):
            count = min(BLOCK_ROWS, rows - first)
            waiting.append(threads.submit(make, count, dim, seed, number))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def random_texts(count: int, tokens: int, seed: int) -> list[str]:
    """Returns texts of common words that each have this many tokens in MiniLM's vocabulary."""
    drawn = np.random.default_rng([seed, tokens]).integers(0, len(_WORDS), (count, tokens - _MARKS))
    return [" ".join(_WORDS[word] for word in row) for row in drawn.tolist()]


def _scaled(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
