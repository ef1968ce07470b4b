"""Calibrations: models that rank sentences and decide on refusal, per snapshot or default."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from generation.evidence import defaults
from generation.evidence.confidence import SIGNALS, Confidence
from generation.evidence.logistic import Floats, LogisticModel
from generation.evidence.sentence_features import FEATURES
from nearline.contract import Strictness
from nearline.errors import NearlineError
from nearline.v1 import snapshot_pb2
from nearline.wire.values import same_fields

_LOG = logging.getLogger(__name__)
_CACHED_SNAPSHOTS = 64
_LEAST_PROBABILITY = 1e-6
# Maximum time for which an answer waits for a manifest.
_WAIT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationStats:
    """The training data of a calibration, and cross-validated measures, which are all 0..1.

    questions: Number of labelled questions.
    answerable: Number of those that the collection answers.
    topic_auroc, evidence_auroc: AUROC of the two models.
    coverage: Share of questions that are answered at the threshold.
    risk: Share of those answers that have no evidence.
    """

    questions: int
    answerable: int
    topic_auroc: float
    evidence_auroc: float
    coverage: float
    risk: float


class Outcome(Enum):
    """The outcome of a question."""

    ANSWERED = "answered"
    NOT_SURE = "not sure"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Models and thresholds of one snapshot.

    sentences: Model over `sentence_features.FEATURES`.
    topic, evidence: Models over `confidence.SIGNALS`.
    topic_threshold, evidence_threshold: Questions with a lower probability are refused, 0..1.
    target_risk: Share of answers without evidence for which evidence_threshold was chosen, 0..1.
    learned: Training data and measures; None for the default calibration.
    """

    sentences: LogisticModel
    topic: LogisticModel
    evidence: LogisticModel
    topic_threshold: float
    evidence_threshold: float
    target_risk: float = 0.0
    learned: CalibrationStats | None = None

    @property
    def calibrated(self) -> bool:
        """True if it was learned from labels of the collection itself."""
        return self.learned is not None

    def rank(self, features: Floats) -> Floats:
        """Returns the logits (n,) of sentences from their (n, f) features."""
        return self.sentences.score(features, FEATURES)

    def assess(self, signals: Mapping[str, float]) -> Confidence:
        """Returns both probabilities from the signals of `confidence.compute_signals`."""
        return Confidence(self.topic.probability(signals), self.evidence.probability(signals))

    def decide(self, sure: Confidence, strictness: Strictness) -> Outcome:
        """Returns the outcome of a question.

        Args:
            sure: Probabilities that it is on topic and that the evidence answers it.
            strictness: How sure an answer must be; balanced applies the threshold unchanged.
        """
        beyond = _logit(sure.evidence) - _logit(self.evidence_threshold)
        if beyond >= defaults.STRICTNESS_LOGITS[strictness.value]:
            return Outcome.ANSWERED
        # What is answered is on topic. Off topic, the closest passages are rarely of use.
        on_topic = sure.topic >= self.topic_threshold
        least = defaults.NOT_SURE_LOGITS if on_topic else defaults.OFF_TOPIC_LOGITS
        return Outcome.NOT_SURE if beyond >= least else Outcome.REFUSED


DEFAULT_CALIBRATION = Calibration(
    sentences=LogisticModel.of(defaults.SENTENCES, defaults.SENTENCES_BIAS, FEATURES),
    topic=LogisticModel.of(defaults.TOPIC, defaults.TOPIC_BIAS, SIGNALS),
    evidence=LogisticModel.of(defaults.EVIDENCE, defaults.EVIDENCE_BIAS, SIGNALS),
    topic_threshold=defaults.TOPIC_THRESHOLD,
    evidence_threshold=defaults.EVIDENCE_THRESHOLD,
)
# The same, for sentences that the judge has read.
JUDGED_DEFAULT = replace(
    DEFAULT_CALIBRATION,
    sentences=LogisticModel.of(defaults.JUDGED_SENTENCES, defaults.JUDGED_SENTENCES_BIAS, FEATURES),
    evidence=LogisticModel.of(defaults.JUDGED_EVIDENCE, defaults.JUDGED_EVIDENCE_BIAS, SIGNALS),
    evidence_threshold=defaults.JUDGED_EVIDENCE_THRESHOLD,
)


def choose_calibration(calibration: Calibration, *, judged: bool) -> Calibration:
    """Returns a learned calibration unchanged, otherwise the default for such evidence."""
    if calibration is DEFAULT_CALIBRATION and judged:
        return JUDGED_DEFAULT
    return calibration


def to_proto(calibration: Calibration) -> snapshot_pb2.AnswerCard:
    """Returns the message that is stored in the manifest of a snapshot."""
    learned = calibration.learned
    return snapshot_pb2.AnswerCard(
        sentences=_model_to_proto(calibration.sentences),
        topic=_model_to_proto(calibration.topic),
        evidence=_model_to_proto(calibration.evidence),
        topic_threshold=calibration.topic_threshold,
        evidence_threshold=calibration.evidence_threshold,
        target_risk=calibration.target_risk,
        **({} if learned is None else same_fields(learned, CalibrationStats)),
    )


def from_proto(card: snapshot_pb2.AnswerCard) -> Calibration:
    """Returns the calibration of a message from `to_proto`.

    Raises: SnapshotMismatch: a model uses a feature that this version does not compute.
    """
    learned = CalibrationStats(**same_fields(card, CalibrationStats))
    return Calibration(
        sentences=_model_from_proto(card.sentences, FEATURES),
        topic=_model_from_proto(card.topic, SIGNALS),
        evidence=_model_from_proto(card.evidence, SIGNALS),
        topic_threshold=card.topic_threshold,
        evidence_threshold=card.evidence_threshold,
        target_risk=card.target_risk,
        learned=learned if card.questions else None,
    )


def _logit(probability: float) -> float:
    bounded = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return math.log(bounded / (1 - bounded))


class ManifestReader(Protocol):
    """Reads manifests; implemented by `nearline.clients.AdminClient`."""

    async def snapshot(self, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        """Returns the manifest of a snapshot."""
        ...


class CalibrationStore:
    """Reads the calibration of each snapshot from its manifest once, and caches it.

    Args:
        manifests: Reads manifests.
        cache_size: Maximum number of cached snapshots; the least recently used is evicted.
    """

    def __init__(self, manifests: ManifestReader, cache_size: int = _CACHED_SNAPSHOTS) -> None:
        self._manifests = manifests
        self._cache_size = cache_size
        self._cache: OrderedDict[tuple[str, str], Calibration] = OrderedDict()
        self._reading: dict[tuple[str, str], asyncio.Task[Calibration | None]] = {}

    def knows(self, collection: str, snapshot_id: str) -> bool:
        """Returns whether the manifest of a snapshot was read, so that `of` returns its
        calibration."""
        return (collection, snapshot_id) in self._cache

    async def of(
        self, collection: str, snapshot_id: str, timeout_s: float | None = None
    ) -> Calibration:
        """Returns the calibration of a snapshot, or the default if it has none or cannot be read.

        Manifests never change, so each is read once; after a failure, the next call tries again.
        Concurrent callers share one request. They wait for it at most two seconds, or timeout_s if
        that is less, and it continues after they stop waiting.
        """
        key = (collection, snapshot_id)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read(collection, snapshot_id))
            self._reading[key] = reading
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        # Unlike `wait_for`, `wait` does not cancel the shared request if one caller leaves.
        limit_s = _WAIT_S if timeout_s is None else min(_WAIT_S, timeout_s)
        done, _ = await asyncio.wait([reading], timeout=limit_s)
        found = reading.result() if done else None
        return DEFAULT_CALIBRATION if found is None else found

    async def _read(self, collection: str, snapshot_id: str) -> Calibration | None:
        try:
            manifest = await self._manifests.snapshot(collection, snapshot_id)
        except NearlineError as error:
            _LOG.warning("no calibration of %s %s: %s", collection, snapshot_id, error.message)
            return None
        found = DEFAULT_CALIBRATION
        if manifest.HasField("answers"):
            try:
                found = from_proto(manifest.answers)
            except NearlineError as error:
                _LOG.warning(
                    "the calibration of %s %s is not used: %s",
                    collection,
                    snapshot_id,
                    error.message,
                )
        self._cache[collection, snapshot_id] = found
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return found


def _model_to_proto(model: LogisticModel) -> snapshot_pb2.LogisticModel:
    terms = [
        snapshot_pb2.LogisticTerm(name=name, weight=weight, mean=mean, scale=scale)
        for name, (weight, mean, scale) in model.terms().items()
    ]
    return snapshot_pb2.LogisticModel(terms=terms, bias=model.bias)


def _model_from_proto(model: snapshot_pb2.LogisticModel, known: tuple[str, ...]) -> LogisticModel:
    terms = {term.name: (term.weight, term.mean, term.scale) for term in model.terms}
    return LogisticModel.of(terms, model.bias, known)
