"""Measures the judge of groundedness on claims whose evidence people labelled, as in SciFact.

Prints, for a judge alone and together with the rules, how well supported claims are told from
contradicted and silent ones.
Run: python -m benchmarks.entailment.measure --data SCIFACT [--judge FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedding.judges.entailment_judge import open_entailment_judge
from embedding.model import DEFAULT_MODEL, find_model
from embedding.settings import EmbeddingSettings
from generation.checks.entailment import correct
from generation.checks.groundedness import Groundedness, check_groundedness
from generation.checks.sentence_verifier import VerifiedSentence
from generation.training.eval_metrics import auroc
from generation.training.labelled_claims import (
    CONTRADICT,
    NONE,
    SUPPORT,
    LabelledClaim,
    load_labelled_claims,
)
from nearline.contract import ENTAILMENT_JUDGE, Lane

_PASSED_CONTRADICTED = 0.2
_AT_ONCE = 8


async def scores(claims: Sequence[LabelledClaim], judge: str) -> NDArray[np.float32]:
    """Returns the probabilities of supported and contradicted, (n, 2).

    Args:
        claims: The claims.
        judge: The shipped judge, or the file of another.
    """
    model = find_model(DEFAULT_MODEL, cache_folder=Path.cwd())
    scorer = open_entailment_judge(model, EmbeddingSettings(threads=1, entailment=judge))
    assert scorer is not None, "the judge needs OpenVINO"
    scorer.batcher.start()
    rows = []
    for first in range(0, len(claims), _AT_ONCE):
        part = claims[first : first + _AT_ONCE]
        sources = [f"{' '.join(one.title.split())}\n{one.source}" for one in part]
        statements = [one.statement for one in part]
        scored = await scorer.score(sources, statements, Lane.INTERACTIVE, None)
        rows.append(scored.rows)
    await scorer.batcher.close()
    return np.concatenate(rows)


def passes(found: Groundedness, row: NDArray[np.float32]) -> bool:
    """Returns whether a claim passes the rules and the judge together, as in generated text."""
    sentence = VerifiedSentence("", [], [], found.problems)
    return not correct(sentence, float(row[0]), float(row[1])).problems


def measure(claims: Sequence[LabelledClaim], rows: NDArray[np.float32]) -> dict[str, Any]:
    """Returns the figures of claims with their scores, (n, 2)."""
    labels = np.array([one.label for one in claims])
    found = [check_groundedness(one.statement, one.source, title=one.title) for one in claims]
    rules = np.array([one.supported for one in found])
    both = np.array([passes(one, row) for one, row in zip(found, rows, strict=True)])
    support, contradict, none = (labels == label for label in (SUPPORT, CONTRADICT, NONE))
    result: dict[str, Any] = {"pairs": len(claims)}
    for name, score in (
        ("support", rows[:, 0]),
        ("no contradiction", -rows[:, 1]),
        ("support - contradiction", rows[:, 0] - rows[:, 1]),
    ):
        floor = np.quantile(score[contradict], 1 - _PASSED_CONTRADICTED, method="higher")
        result[name] = {
            "auroc_contradicted": round(auroc(score[support], score[contradict]), 3),
            "auroc_silent": round(auroc(score[support], score[none]), 3),
            "supported_pass_at_0.20": round(float((score[support] > floor).mean()), 3),
        }
    for name, passed in (("judge", rows[:, 0] >= 0.5), ("rules", rules), ("both", both)):
        result[name] = {
            label: round(float(passed[labels == label].mean()), 3)
            for label in (SUPPORT, CONTRADICT, NONE)
        }
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", action="append", default=None)
    parser.add_argument("--judge", default=ENTAILMENT_JUDGE, help="File of a judge.")
    options = parser.parse_args()
    for split in options.split or ["train", "dev"]:
        claims = load_labelled_claims(options.data, split)
        rows = asyncio.run(scores(claims, options.judge))
        print(json.dumps({"split": split} | measure(claims, rows)))


if __name__ == "__main__":
    main()
