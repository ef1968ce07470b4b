"""Recall, measured on live searches, for the judge of a trial."""

from __future__ import annotations

from collections.abc import Mapping

from nearline.contract import Arm
from retrieval.rollout.trial import Trial
from retrieval.search.collection import ServedCollection


class TrialRecall:
    """Has more of a canary's searches looked at, and tells its judge what came of them.

    Args:
        trials: By collection.
        usual: Share of searches that are looked at anyhow.
    """

    def __init__(self, trials: Mapping[str, Trial], usual: float) -> None:
        self._trials = trials
        self._usual = usual

    def share(self, served: ServedCollection, arm: Arm | None) -> float:
        """Returns the share of searches to do again exactly, 0..1."""
        trial = self._trials.get(served.name)
        if trial is None or arm is not Arm.CANARY:
            return self._usual
        return max(self._usual, trial.split.recall_sample)

    def tell(self, collection: str, arm: Arm | None, value: float) -> None:
        """Takes in the recall of a search, 0..1."""
        trial = self._trials.get(collection)
        if trial is not None and arm is not None:
            trial.judge.recall(arm is Arm.CANARY, value)
