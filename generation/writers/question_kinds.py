"""Classifies questions by their meaning, so that each kind has its own writer."""

from __future__ import annotations

from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import NearlineError

_TIMEOUT_S = 2.0


class AnswerKind(Enum):
    """The kind of answer that a question needs; UNKNOWN if no embedder tells."""

    FACT = "fact"
    INSTRUCTION = "instruction"
    COMPARISON = "comparison"
    EXPLANATION = "explanation"
    UNKNOWN = "unknown"


# Questions about nothing in particular, and about different things: what they share is the kind.
_PROTOTYPES: Final = {
    AnswerKind.FACT: "When does it begin?|Who is responsible for it?|How much does it cost?|Where "
    "is it?|How many are there?|Is it allowed?|What is its name?|maximum size|When does the "
    "contract begin?|Who is responsible for the payments?|How much does the kettle cost?|Where is "
    "the main office?|How many people work in the team?|Is smoking allowed in the garden?|What is "
    "the name of the river?|maximum size of a file",
    AnswerKind.INSTRUCTION: "How do I use it?|How can I change it?|What are the steps to set it "
    "up?|What must I do to get it?|Instructions for making one|how to install and configure|How "
    "do I clean the kettle?|How can I change the contract?|What are the steps to install the "
    "software?|What must I do to get a refund?|instructions for baking bread|how to read a file "
    "line by line|configure the server|How do I apply for leave?",
    AnswerKind.COMPARISON: "Compare the two.|What is the difference between them?|Which is "
    "better, this or the other?|Advantages and disadvantages of each|one versus the other|How "
    "does this differ from that?|Compare the kettle with the lamp.|What is the difference between "
    "the two contracts?|Which is better, the train or the car?|advantages of this software over "
    "the other|cats versus dogs|How do full-time and part-time jobs differ?|pros and cons of "
    "renting and buying|Which of the two plans is cheaper?",
    AnswerKind.EXPLANATION: "Why is it like this?|Explain how it works.|Summarise the "
    "document.|What are the reasons for it?|Give an overview.|Describe the background.|Why is the "
    "water cold?|Explain how the software works.|Summarise the contract.|What are the reasons for "
    "the delay?|Give an overview of the city's history.|Why was the payment rejected?|Describe "
    "the structure of the team.|What does the rule mean for families?",
}


class QuestionKinds:
    """Finds the kind of a question: that of the prototypes whose mean its vector is nearest to.

    The prototypes are embedded once per model. They are English; questions may be in any language
    that the model knows.

    Args:
        embedder: Embeds with the models of the collections; if None, every kind is unknown.
    """

    def __init__(self, embedder: c.Embedder | None) -> None:
        self._embedder = embedder
        self._centres: dict[str, NDArray[np.float32]] = {}

    async def of(
        self,
        question: str,
        vectors: c.Embeddings | None,
        fingerprint: str,
        timeout_s: float | None,
    ) -> AnswerKind:
        """Returns the kind of a question; never fails.

        Args:
            question: Its text.
            vectors: Its embedding. If None, or of another model, it is embedded here.
            fingerprint: Model of the collection; empty if unknown.
            timeout_s: Optional; a lower limit on each wait for the embedder.
        """
        if self._embedder is None or not fingerprint:
            return AnswerKind.UNKNOWN
        limit_s = _TIMEOUT_S if timeout_s is None else min(_TIMEOUT_S, timeout_s)
        try:
            if fingerprint not in self._centres:
                self._centres[fingerprint] = await self._embed_centres(fingerprint, limit_s)
            if vectors is None or vectors.fingerprint != fingerprint:
                vectors = await self._embedder.embed(
                    [question],
                    c.TextRole.QUERY,
                    expected_fingerprint=fingerprint,
                    timeout_s=limit_s,
                )
        except NearlineError:
            return AnswerKind.UNKNOWN
        cosines = self._centres[fingerprint] @ vectors.vectors[0]
        return list(_PROTOTYPES)[int(np.argmax(cosines))]

    async def _embed_centres(self, fingerprint: str, timeout_s: float) -> NDArray[np.float32]:
        """Returns the mean of the prototypes of each kind, (kinds, d), of length 1."""
        assert self._embedder is not None
        texts = [text for row in _PROTOTYPES.values() for text in row.split("|")]
        found = await self._embedder.embed(
            texts, c.TextRole.QUERY, expected_fingerprint=fingerprint, timeout_s=timeout_s
        )
        counts = [row.count("|") + 1 for row in _PROTOTYPES.values()]
        parts = np.split(found.vectors, np.cumsum(counts)[:-1])
        means = np.stack([part.mean(axis=0) for part in parts])
        centres: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return centres
