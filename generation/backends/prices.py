"""What models cost."""

from __future__ import annotations

from typing import NamedTuple


class TokenPrice(NamedTuple):
    """Of a million tokens, in one currency: of the prompt and of the answer."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Returns what so many tokens cost."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1_000_000
