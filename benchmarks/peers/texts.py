"""Texts of which the vectors are made: real ones if there are some, made-up ones otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import nearline
from benchmarks.make_vectors import sentences
from nearline_cli.terminal.output import print_note

# Corpora alongside the repository.
_CORPORA = Path(nearline.__file__).parents[2] / "shared" / "data"
_WORDS = 20_000
_TOPICS = 400
_TOPIC_WORDS = 300
# Share of the words of a text that are its topic's; the others are anybody's.
_OF_TOPIC = 0.6
_SHORTEST, _LONGEST = 8, 30


def short_texts(n: int, corpora: Sequence[Path] = (), seed: int = 0) -> list[str]:
    """Returns n different short texts, or fewer if the corpora have fewer.

    Args:
        n: Number of texts.
        corpora: Files corpus.jsonl in BEIR layout. Optional; those in ../shared/data are taken
            otherwise, and without them the texts are made up.
        seed: Seed of made-up texts.
    """
    files = corpora or sorted(_CORPORA.glob("*/corpus.jsonl"))
    if files:
        return sentences(files, n)
    print_note(f"{_CORPORA} has no corpora: the texts are made up")
    return made_up_texts(n, seed)


def made_up_texts(n: int, seed: int = 0) -> list[str]:
    """Returns n texts of 8 to 30 words of a topic and of the language, both by Zipf's law."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{number}" for number in range(_WORDS)])
    of_language = _zipf(_WORDS)
    of_topic = _zipf(_TOPIC_WORDS)
    topics = rng.integers(0, _WORDS, (_TOPICS, _TOPIC_WORDS))
    texts = []
    for number, (topic, length) in enumerate(
        zip(
            rng.integers(0, _TOPICS, n),
            rng.integers(_SHORTEST, _LONGEST + 1, n),
            strict=True,
        )
    ):
        own = rng.binomial(length, _OF_TOPIC)
        chosen = np.concatenate(
            [
                topics[topic, rng.choice(_TOPIC_WORDS, own, p=of_topic)],
                rng.choice(_WORDS, length - own, p=of_language),
            ]
        )
        # Its number keeps texts of the same words apart.
        texts.append(f"{' '.join(words[chosen])} text{number}")
    return texts


def _zipf(n: int) -> NDArray[np.float64]:
    weights = 1 / np.arange(1, n + 1)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
