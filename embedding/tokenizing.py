"""Text to token ids."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Its own thread pool would compete with the model for the cores; ours is small and off the loop.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Token ids of one text.

    ids: (length,) int64, cut to what the model reads. count: Tokens before the cut.
    """

    ids: NDArray[np.int64]
    count: int


class TextTokenizer:
    """A tokenizer for one thread: it is not to be shared.

    Args:
        folder: Model folder with tokenizer.json.
        max_tokens: Tokens that the model reads, special tokens included.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # Without truncation the whole count is known; the cut is made here.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        special = self._tokenizer.encode("a").special_tokens_mask
        self._tail = next((i for i, mark in enumerate(reversed(special)) if not mark), 0)

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Gives the token ids of each text."""
        return [
            TokenizedText(self._cut(encoding.ids), len(encoding.ids))
            for encoding in self._tokenizer.encode_batch_fast(list(texts))
        ]

    def _cut(self, ids: list[int]) -> NDArray[np.int64]:
        if len(ids) > self._max_tokens:
            ids = ids[: self._max_tokens - self._tail] + ids[len(ids) - self._tail :]
        return np.array(ids, np.int64)
