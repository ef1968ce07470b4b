"""Tests the threshold of a trained judge, and that what is learned can be served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedding.judges.entailment_judge import read_change
from generation.training.labelled_claims import LabelledClaim
from nearline.errors import InvalidRequest
from nearline_cli.compose.entailment_trainer import (
    check_claims,
    check_out,
    support_margins,
    support_threshold,
    train_judge,
)
from tests.optional_packages import needs

FIELDS = ("copper", "amber", "barley", "cedar", "flint", "garnet")


def _claims(each: int) -> list[LabelledClaim]:
    found = []
    for number in range(each):
        field = FIELDS[number % len(FIELDS)]
        source, title = f"The price of {field} rose in {1900 + number}.", f"On {field}"
        for label, statement in (
            ("SUPPORT", f"{field.capitalize()} became more expensive."),
            ("CONTRADICT", f"{field.capitalize()} became cheaper."),
            ("NONE", f"{field.capitalize()} is heavy."),
        ):
            found.append(LabelledClaim(label, statement, title, source, f"d{number}"))
    return found


def test_the_margin_is_the_log_odds_of_supported() -> None:
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.5, 0.25, 0.25]]))
    np.testing.assert_allclose(support_margins(logits), [np.log(4), 0.0], atol=1e-9)


def test_a_fifth_of_the_contradicted_claims_passes_at_the_threshold() -> None:
    claims = [LabelledClaim("CONTRADICT", "", "", "", "d")] * 10
    claims.append(LabelledClaim("SUPPORT", "", "", "", "d"))
    logits = np.full((11, 3), -np.inf)
    logits[:, 0] = [*range(10), 50]
    logits[:, 1] = 0.0
    threshold = support_threshold(logits, claims)
    assert threshold == 8.0
    assert sum(support_margins(logits)[:10] > threshold) <= 2


def test_too_few_claims_of_a_label_are_refused() -> None:
    claims = [one for one in _claims(30) if one.label != "NONE"]
    with pytest.raises(InvalidRequest, match="0 of 60 claims have the label NONE, 20 are needed"):
        check_claims(claims)


def test_a_file_that_cannot_be_served_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"does not end in \.safetensors"):
        check_out(tmp_path / "judge.bin")
    with pytest.raises(InvalidRequest, match="there is no folder"):
        check_out(tmp_path / "missing" / "judge.safetensors")
    check_out(tmp_path / "judge.safetensors")


@needs("torch", "torch")
def test_what_is_learned_is_written_with_its_threshold_as_even_odds(tmp_path: Path) -> None:
    out = tmp_path / "judge.safetensors"
    shares: list[float] = []
    learned = train_judge(
        _claims(20), out, max_s=5.0, progress=lambda share, loss: shares.append(share)
    )
    assert learned.claims == 60
    # Every fifth document is held out, with its three claims.
    assert learned.held_out == 12
    assert learned.passed_contradicted <= 0.25
    assert shares == sorted(shares) and 0 < shares[-1] <= 1
    change = read_change(out)
    assert change["head.weight"].shape == (3, 384)
    assert all(np.isfinite(part).all() for part in change.values())
