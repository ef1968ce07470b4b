"""Learns the judge of groundedness from labelled statements, and measures it on held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generation.training.eval_metrics import auroc
from generation.training.labelled_claims import CONTRADICT, LABELS, SUPPORT, LabelledClaim
from nearline.errors import InvalidRequest, SettingsError

# Fewest statements of each label; fewer teach nothing that holds for others.
MIN_CLAIMS = 20
# Share of contradicted statements that may pass.
PASSED_CONTRADICTED = 0.2
_PASSES, _RATE = 6.0, 6e-4
# Part of the labels that is held out to choose the threshold.
_HELD_OUT = 5


class TrainedJudge(NamedTuple):
    """Figures of a learned judge.

    claims: Number of labelled claims. held_out: Those of them that chose the threshold.
    auroc: Supported against contradicted, on the held-out ones.
    passed: Share of the held-out supported claims that pass. passed_contradicted: The same of
        contradicted ones.
    """

    claims: int
    held_out: int
    auroc: float
    passed: float
    passed_contradicted: float


def check_claims(claims: Sequence[LabelledClaim]) -> None:
    """Raises InvalidRequest if there are too few claims of a label."""
    for label in LABELS:
        count = sum(one.label == label for one in claims)
        if count < MIN_CLAIMS:
            raise InvalidRequest(
                f"{count} of {len(claims)} claims have the label {label}, {MIN_CLAIMS} are needed; "
                "label more of them",
                field="data",
            )


def check_out(out: Path) -> None:
    """Raises InvalidRequest if a judge cannot be written to a file, or not be served from it."""
    if out.suffix != ".safetensors":
        raise InvalidRequest(f"{out} does not end in .safetensors; choose such a name", field="out")
    if not out.absolute().parent.is_dir():
        raise InvalidRequest(f"there is no folder {out.absolute().parent}; create it", field="out")


def support_threshold(logits: NDArray[np.floating], claims: Sequence[LabelledClaim]) -> float:
    """Returns the smallest margin at which at most a fifth of contradicted claims pass.

    Args:
        logits: (n, 3) of supported, contradicted and silent.
        claims: The n claims, some of them contradicted.
    """
    margins = support_margins(logits)
    against = np.array([one.label == CONTRADICT for one in claims])
    return float(np.quantile(margins[against], 1 - PASSED_CONTRADICTED, method="higher"))


def support_margins(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns the log odds of supported against the two others, (n,)."""
    return np.asarray(logits[:, 0] - np.logaddexp(logits[:, 1], logits[:, 2]))


def train_judge(
    claims: Sequence[LabelledClaim],
    out: Path,
    *,
    max_s: float,
    progress: Callable[[float, float], None] | None = None,
) -> TrainedJudge:
    """Learns a judge, starting from the shipped one, and writes it.

    A fifth of the documents is held out to choose the threshold, which becomes a probability of
    0.5.

    Args:
        claims: Labelled claims, at least `MIN_CLAIMS` of each label.
        out: The file to write; an existing one is replaced.
        max_s: Seconds after which training ends.
        progress: See `embedding.judges.low_rank_trainer.train`.
    Raises: InvalidRequest: too few claims. SettingsError: torch is not installed.
    """
    check_claims(claims)
    try:
        from embedding.judges import low_rank_trainer as training
    except ImportError as error:
        raise SettingsError(
            f"training needs torch and transformers ({error}); run pip install "
            "'nearline-server[torch]'"
        ) from error
    from embedding.judges.entailment_judge import SHIPPED_FILE, read_change
    from embedding.model import DEFAULT_MODEL, find_model

    groups = sorted({one.document for one in claims})
    held = set(groups[::_HELD_OUT])
    learned = [one for one in claims if one.document not in held]
    rest = [one for one in claims if one.document in held]
    folder = find_model(DEFAULT_MODEL, cache_folder=out.absolute().parent).folder
    model = training.EntailmentModel(folder)
    model.start(read_change(SHIPPED_FILE))

    def examples(chosen: Sequence[LabelledClaim]) -> list[training.Example]:
        return [
            training.Example(one.statement, one.title, one.source, LABELS.index(one.label))
            for one in chosen
        ]

    training.train(
        model,
        [[one] for one in examples(learned)],
        passes=_PASSES,
        rate=_RATE,
        max_s=max_s,
        progress=progress,
    )
    logits = training.predict(model, examples(rest))
    threshold = support_threshold(logits, rest)
    model.save(out, f"{len(claims)} labelled claims", threshold=threshold)
    margins = support_margins(logits)
    supported = np.array([one.label == SUPPORT for one in rest])
    against = np.array([one.label == CONTRADICT for one in rest])
    return TrainedJudge(
        claims=len(claims),
        held_out=len(rest),
        auroc=float(auroc(margins[supported], margins[against])),
        passed=float((margins[supported] > threshold).mean()),
        passed_contradicted=float((margins[against] > threshold).mean()),
    )
