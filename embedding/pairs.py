"""Pairs of texts in the queue of a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.sentences import estimate_tokens

# No text of which a model reads n tokens is longer than so many times n, but for odd ones: English
# has 4 to 5 characters a token, code and tables fewer.
_CHARACTERS_PER_TOKEN = 16
# [CLS] first [SEP] second [SEP]
_SPECIAL_TOKENS = 3


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that are scored together; its len estimates its tokens, at least 1."""

    first: str
    second: str
    tokens: int

    def __len__(self) -> int:
        return self.tokens


def make_pairs(firsts: Sequence[str], seconds: Sequence[str], max_tokens: int) -> list[TextPair]:
    """Makes pairs of texts, each cut to the length that the model can read.

    Args:
        firsts, seconds: n texts each.
        max_tokens: Most tokens that the model reads of a pair.
    Returns: n pairs; the cut keeps `16 * max_tokens` characters, so that a text of megabytes costs
        no more to tokenise than one that fits.
    """
    longest = _CHARACTERS_PER_TOKEN * max_tokens
    cut = {text: text[:longest] for text in (*firsts, *seconds)}
    # The query is the same in every pair of a request, so it is counted once.
    tokens = {text: estimate_tokens(part) for text, part in cut.items()}
    return [
        TextPair(cut[a], cut[b], min(max_tokens, tokens[a] + tokens[b] + _SPECIAL_TOKENS))
        for a, b in zip(firsts, seconds, strict=True)
    ]


def pack_pairs(pairs: Sequence[TextPair]) -> list[NDArray[Any]]:
    """Packs pairs for a worker process.

    Returns: (bytes,) uint8, all texts in UTF-8; (n, 3) int64: bytes of the first text and of the
        second, and tokens.
    """
    texts = [text.encode() for pair in pairs for text in (pair.first, pair.second)]
    sizes = np.fromiter(map(len, texts), np.int64, len(texts)).reshape(-1, 2)
    tokens = np.fromiter(map(len, pairs), np.int64, len(pairs))
    return [np.frombuffer(b"".join(texts), np.uint8), np.column_stack((sizes, tokens))]


def unpack_pairs(arrays: Sequence[NDArray[Any]]) -> list[TextPair]:
    """Returns the pairs that `pack_pairs` packed."""
    data, facts = arrays[0].tobytes(), arrays[1].tolist()
    pairs: list[TextPair] = []
    at = 0
    for first, second, tokens in facts:
        middle, end = at + first, at + first + second
        pairs.append(TextPair(data[at:middle].decode(), data[middle:end].decode(), tokens))
        at = end
    return pairs
