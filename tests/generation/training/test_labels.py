"""Tests that labels of both layouts become spans, and that malformed ones are reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from generation.training import labels
from generation.training.labels import LabelledQuestion, LabelSpan
from nearline.errors import InvalidRequest


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    _write(
        tmp_path / "abstracts.jsonl",
        [{"doc_id": "d", "sentences": ["A cat sat.", "It röared.", "So what?"]}],
    )
    _write(
        tmp_path / "claims_train.jsonl",
        [
            {
                "query_id": "1",
                "text": "Cats roar.",
                "cited_doc_ids": ["d", "e"],
                "evidence": {
                    "d": [
                        {"label": "SUPPORT", "sentences": [1, 2]},
                        {"label": "SUPPORT", "sentences": [1]},
                    ]
                },
            },
            {"query_id": "2", "text": "Cats fly.", "cited_doc_ids": ["e"], "evidence": {}},
        ],
    )
    return tmp_path


def test_evidence_sentences_are_spans_of_the_sentences_joined(claims: Path) -> None:
    text = "A cat sat. It röared. So what?"
    first, second = labels.load_labels(claims, "train")
    assert first == LabelledQuestion(
        id="1",
        text="Cats roar.",
        spans={"d": [LabelSpan(11, 21, "It röared."), LabelSpan(22, 30, "So what?")]},
        cited=frozenset({"d", "e"}),
    )
    assert all(text[start:end] == held for start, end, held in first.spans["d"])
    assert (second.has_answer, second.cited) == (False, frozenset({"e"}))


def test_answers_are_spans_and_questions_without_have_none(tmp_path: Path) -> None:
    _write(
        tmp_path / "questions.jsonl",
        [
            {
                "query_id": 7,
                "text": "Who sat?",
                "doc_id": "d",
                "answers": [{"text": "cat", "answer_start": 2}],
            },
            {"query_id": "8", "text": "Who flew?", "doc_id": "d", "answers": []},
            {"query_id": "9", "text": "Why?"},
        ],
    )
    first, second, third = labels.load_labels(tmp_path, "dev")
    assert first.spans == {"d": [LabelSpan(2, 5, "cat")]}
    assert (first.id, second.has_answer, second.cited) == ("7", False, frozenset({"d"}))
    assert third.cited == frozenset()
    # The file of the split has precedence.
    _write(tmp_path / "questions_dev.jsonl", [{"query_id": "0", "text": "?"}])
    assert [one.id for one in labels.load_labels(tmp_path, "dev")] == ["0"]


def test_questions_that_share_a_document_with_others_are_dropped(claims: Path) -> None:
    first, second = labels.load_labels(claims, "train")
    assert labels.drop_overlapping([first, second], [second]) == []
    alone = LabelledQuestion(id="3", text="?", spans={}, cited=frozenset({"f"}))
    assert labels.drop_overlapping([first, alone], [second]) == [alone]


def test_a_missing_split_is_reported_with_the_existing_ones(claims: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"'test'.*it has claims_train\.jsonl"):
        labels.load_labels(claims, "test")


@pytest.mark.parametrize(
    "row",
    [
        {"query_id": "3", "text": "?", "evidence": {"d": [{"sentences": [9]}]}},
        {"query_id": "3", "text": "?", "evidence": {"nobody": [{"sentences": [0]}]}},
        {"query_id": "3", "evidence": {}},
        ["no object"],
    ],
)
def test_a_malformed_claim_is_named_by_file_and_line(claims: Path, row: object) -> None:
    with (claims / "claims_train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row))
    with pytest.raises(InvalidRequest, match=r"claims_train\.jsonl:3 "):
        labels.load_labels(claims, "train")


def test_an_answer_without_a_document_is_malformed(tmp_path: Path) -> None:
    row = {"query_id": "1", "text": "?", "answers": [{"text": "a", "answer_start": 0}]}
    _write(tmp_path / "questions_x.jsonl", [row])
    with pytest.raises(InvalidRequest, match=r"questions_x\.jsonl:1 .*doc_id"):
        labels.load_labels(tmp_path, "x")
