"""Prices of models."""

from __future__ import annotations

from typing import NamedTuple


class TokenPrice(NamedTuple):
    """Prices per million tokens of the prompt and of the answer, in one currency."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Returns the cost of a number of tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1_000_000
