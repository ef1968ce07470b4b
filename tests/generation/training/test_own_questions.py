"""Tests that the questions of our own are what their README says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from generation.training.labels import LabelledQuestion, load_labels
from nearline.sentences import sentences

DATA = Path(__file__).parents[3] / "benchmarks" / "data"


def _documents(name: str) -> dict[str, dict[str, str]]:
    lines = (DATA / name / "corpus.jsonl").read_text("utf-8").splitlines()
    return {row["_id"]: row for row in map(json.loads, lines)}


def _questions(name: str, split: str) -> list[LabelledQuestion]:
    return load_labels(DATA / name, split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_of_ten_paragraphs_has_fifteen_questions_without_an_answer(split: str) -> None:
    asked = _questions("near_topic", split)
    counts = Counter((*one.cited, one.has_answer) for one in asked)
    assert len(counts) == 20
    assert all(count == (5 if answered else 15) for (_, answered), count in counts.items())


def test_the_paragraphs_are_short_and_no_paragraph_is_in_both_splits() -> None:
    documents = _documents("near_topic")
    assert len(documents) == 20
    assert all(80 <= len(row["text"].split()) <= 150 for row in documents.values())
    train, test = (
        {name for one in _questions("near_topic", split) for name in one.cited}
        for split in ("train", "test")
    )
    assert train | test == set(documents) and not train & test


@pytest.mark.parametrize(
    ("name", "split"), [("near_topic", "train"), ("near_topic", "test"), ("answer_judge", "train")]
)
def test_an_answer_is_one_whole_sentence(name: str, split: str) -> None:
    documents = _documents(name)
    for one in _questions(name, split):
        for document, spans in one.spans.items():
            text = documents[document]["text"]
            (span,) = spans
            assert (span.start, span.end) in list(sentences(text))
            assert text[span.start : span.end] == span.text


def test_the_judge_is_not_trained_on_what_it_is_measured_on() -> None:
    trained = _questions("answer_judge", "train")
    measured = [one for split in ("train", "test") for one in _questions("near_topic", split)]
    assert not {one.text for one in trained} & {one.text for one in measured}
    assert not set(_documents("answer_judge")) & set(_documents("near_topic"))
