"""The shipped how-to questions, with the documentation of the Python that runs the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.how_to_questions import QUESTIONS, write_questions
from generation.training.labels import LabelledQuestion, load_labels


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[list[LabelledQuestion]]:
    folder: Path = tmp_path_factory.mktemp("how_to")
    write_questions(folder)
    return [load_labels(folder, split) for split in ("train", "test")]


def test_no_question_is_in_both_splits_and_each_split_has_both_kinds(
    splits: list[list[LabelledQuestion]],
) -> None:
    train, test = ({question.text for question in split} for split in splits)
    assert not train & test
    for split in splits:
        answered = sum(question.has_answer for question in split)
        assert answered >= 15 and len(split) - answered >= 15


def test_most_questions_are_about_entries_that_every_python_has(
    splits: list[list[LabelledQuestion]],
) -> None:
    # A newer Python may drop a module, and the questions about it are left out.
    asked = len(QUESTIONS.read_text("utf-8").splitlines())
    assert sum(map(len, splits)) >= 0.9 * asked
