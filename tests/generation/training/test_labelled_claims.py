"""Tests which pairs are read from labelled claims, and that damaged files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generation.training.labelled_claims import LabelledClaim, load_labelled_claims
from nearline.errors import InvalidRequest

ABSTRACT = {
    "doc_id": "d1",
    "title": "On kettles",
    "sentences": ["It has a lid.", "The kettle boils in 3 minutes.", "It is made of steel."],
}


def _write(folder: Path, *claims: Any, abstracts: str = json.dumps(ABSTRACT)) -> Path:
    (folder / "abstracts.jsonl").write_text(f"{abstracts}\n", "utf-8")
    lines = [one if isinstance(one, str) else json.dumps(one) for one in claims]
    (folder / "claims_train.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def _claim(text: str, evidence: Any, cited: Any = ("d1",)) -> dict[str, Any]:
    return {"query_id": "1", "text": text, "cited_doc_ids": list(cited), "evidence": evidence}


def test_the_source_of_a_claim_is_its_labelled_sentences_in_order(tmp_path: Path) -> None:
    gold = [{"label": "CONTRADICT", "sentences": [2]}, {"label": "CONTRADICT", "sentences": [0]}]
    folder = _write(tmp_path, _claim("It is wooden.", {"d1": gold}))
    assert load_labelled_claims(folder, "train") == [
        LabelledClaim(
            "CONTRADICT", "It is wooden.", "On kettles", "It has a lid. It is made of steel.", "d1"
        )
    ]


def test_without_evidence_the_two_sentences_with_most_of_the_wording_are_the_source(
    tmp_path: Path,
) -> None:
    folder = _write(tmp_path, _claim("The kettle boils, and is made of steel.", {}))
    (found,) = load_labelled_claims(folder, "train")
    assert found.label == "NONE"
    assert found.source == "The kettle boils in 3 minutes. It is made of steel."


def test_a_cited_document_without_labels_of_its_own_is_left_out(tmp_path: Path) -> None:
    other = json.dumps(ABSTRACT | {"doc_id": "d2"})
    gold = {"d2": [{"label": "SUPPORT", "sentences": [0]}]}
    folder = _write(
        tmp_path,
        _claim("It has a lid.", gold, ("d1", "d2")),
        abstracts=f"{json.dumps(ABSTRACT)}\n{other}",
    )
    assert [one.document for one in load_labelled_claims(folder, "train")] == ["d2"]


@pytest.mark.parametrize(
    "claim",
    [
        "[]",
        "{",
        '{"text": "a"}',
        _claim("a", {}, ("missing",)),
        _claim("a", {"d1": [{"label": "MAYBE", "sentences": [0]}]}),
        _claim("a", {"d1": [{"label": "SUPPORT", "sentences": [9]}]}),
        _claim("a", {"d1": [{"label": "SUPPORT", "sentences": "0"}]}),
    ],
)
def test_a_damaged_line_is_refused_by_file_and_number(tmp_path: Path, claim: Any) -> None:
    gold = {"d1": [{"label": "SUPPORT", "sentences": [0]}]}
    folder = _write(tmp_path, _claim("It has a lid.", gold), claim)
    with pytest.raises(InvalidRequest, match=r"claims_train\.jsonl:2 is not a JSON object"):
        load_labelled_claims(folder, "train")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"abstracts\.jsonl is missing"):
        load_labelled_claims(tmp_path, "train")
