"""Corrects the verdict of the rules on a sentence by the entailment model of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from generation.checks.sentence_verifier import VerifiedSentence
from generation.evidence.sources import EvidenceSource
from nearline import contract as c
from nearline.errors import NearlineError
from nearline.tracing.spans import stage

# Spans of a sentence that are compared with it; each takes about 3 ms on two cores.
MAX_SPANS = 8
# Code points of a sentence and of a span that are compared; models read fewer.
_MAX_CHARACTERS = 4_096
# How long the answer to "which model does the service have?" is used.
_RECHECK_S = 60.0
_INFO_TIMEOUT_S = 1.0
_SURE = 0.5
# Beginnings of problems that no model removes, because a model may overlook a number.
_FIRM = ("number", "date", "unit")


@runtime_checkable
class EntailmentService(c.Entailment, Protocol):
    """An entailment model with a card; implemented by `nearline.clients.EmbeddingClient`."""

    async def info(self) -> c.EmbedderInfo:
        """Returns the card of the service."""
        ...


class EntailmentCheck:
    """Asks the entailment model of a service, if it has one.

    Args:
        service: The embedding service.
        clock: Time in seconds.
    """

    def __init__(
        self, service: EntailmentService, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._clock = clock
        self._model = ""
        self._check_at = -np.inf
        self._checking = asyncio.Lock()

    async def apply(
        self, sentence: VerifiedSentence, sources: Sequence[EvidenceSource], timeout_s: float
    ) -> VerifiedSentence:
        """Returns a sentence with its problems corrected; never fails.

        All spans are compared in one request. A contradiction adds a problem that no rule detects,
        unless another span supports the sentence. Support removes the problems of wording, names,
        negation and direction, but not of numbers, units and dates.

        Args:
            sentence: The sentence as verified by the rules.
            sources: The evidence.
            timeout_s: Maximum wait in seconds; after it, or without a model, the sentence is
                returned unchanged.
        """
        if not sentence.spans or not sentence.body:
            return sentence
        model = await self._current_model()
        if not model:
            return sentence
        premises = [
            _premise(sources[span.source], sources[span.source].text(span), model)
            for span in sentence.spans[:MAX_SPANS]
        ]
        body = sentence.body[:_MAX_CHARACTERS]
        try:
            with stage("check sentence"):
                scores = await self._service.entail(
                    premises, [body] * len(premises), timeout_s=timeout_s
                )
        except NearlineError:
            return sentence
        return correct(sentence, max(scores.entailment), max(scores.contradiction))

    async def _current_model(self) -> str:
        async with self._checking:
            if self._clock() < self._check_at:
                return self._model
            try:
                async with asyncio.timeout(_INFO_TIMEOUT_S):
                    self._model = (await self._service.info()).entailment
            except (NearlineError, TimeoutError):
                self._model = ""
            self._check_at = self._clock() + _RECHECK_S
            return self._model


def correct(
    sentence: VerifiedSentence, entailment: float, contradiction: float
) -> VerifiedSentence:
    """Returns a sentence with its problems corrected.

    Args:
        sentence: The sentence as verified by the rules.
        entailment, contradiction: Highest probabilities of its spans, 0..1.
    """
    if entailment >= _SURE:
        firm = tuple(one for one in sentence.problems if one.startswith(_FIRM))
        return sentence._replace(problems=firm)
    if contradiction >= _SURE:
        why = f"the source contradicts it, according to a model ({contradiction:.2f})"
        return sentence._replace(problems=(*sentence.problems, why))
    return sentence


def _premise(source: EvidenceSource, text: str, model: str) -> str:
    text = text[:_MAX_CHARACTERS]
    if model != c.ENTAILMENT_JUDGE:
        return text
    # The judge reads the first line as the title.
    return f"{' '.join((source.best.title or '').split())}\n{text}"
