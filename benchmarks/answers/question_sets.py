"""Collections with questions whose answers are known."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OWN = Path(__file__).parents[1] / "data"
_TAG = re.compile(r"<[^>]{1,500}>")
_SPACE = re.compile(r"[\s`*|]+")


@dataclass(frozen=True, slots=True)
class KnownQuestion:
    """A question of a collection.

    passages: Texts that answer it; empty if the collection does not. must: Strings that a useful
    answer holds, all of them; "a|b" is either. must_not: Values of other entries.
    """

    text: str
    passages: tuple[str, ...] = ()
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether the collection answers it."""
        return bool(self.passages)

    def is_answered_by(self, text: str) -> bool:
        """Returns whether a text holds all that a useful answer must, and no value of another."""
        told = plain(text)
        held = all(any(plain(one) in told for one in each.split("|")) for each in self.must)
        return held and not any(_has_word(told, plain(one)) for one in self.must_not)


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A collection: the files or the corpus to build it from, and its questions.

    kind: What it is measured as: folder, manual, squad, selqa, near, how_to.
    """

    name: str
    kind: str
    corpus: Path
    questions: Sequence[KnownQuestion]


def plain(text: str) -> str:
    """Returns a text without tags, signs of Markdown, case and differences of white space."""
    return _SPACE.sub(" ", html.unescape(_TAG.sub(" ", text))).strip().casefold()


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", text) is not None


def folder_sets(root: Path = OWN / "folders") -> list[QuestionSet]:
    """Returns our own folders."""
    return [
        QuestionSet(folder.name, "folder", folder / "files", _own(folder / "questions.jsonl"))
        for folder in sorted(root.iterdir())
        if (folder / "questions.jsonl").exists()
    ]


def manual_sets(questions: Path, corpora: Path, kind: str) -> list[QuestionSet]:
    """Returns manuals: questions/NAME.jsonl about the files of corpora/NAME."""
    return [
        QuestionSet(path.stem, kind, corpora / path.stem, _own(path))
        for path in sorted(questions.glob("*.jsonl"))
        if (corpora / path.stem).is_dir()
    ]


def squad_sets(root: Path) -> list[QuestionSet]:
    """Returns the articles of `squad-folders`."""
    return [
        QuestionSet(folder.name, "squad", folder / "files", _squad(folder))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    ]


def corpus_set(name: str, kind: str, folder: Path, split: str) -> QuestionSet:
    """Returns a set of `corpus.jsonl` with `questions_SPLIT.jsonl`."""
    questions = []
    for row in _rows(folder / f"questions_{split}.jsonl"):
        answers = tuple(answer["text"] for answer in row["answers"])
        questions.append(KnownQuestion(row["text"], answers, answers[:1]))
    return QuestionSet(name, kind, folder / "corpus.jsonl", questions)


def _own(path: Path) -> list[KnownQuestion]:
    found = []
    for row in _rows(path):
        found.append(
            KnownQuestion(
                row["question"],
                (row["answer"],) if row.get("answerable", True) else (),
                tuple(row.get("must", ())),
                tuple(row.get("must_not", ())),
            )
        )
    return found


def _squad(folder: Path) -> list[KnownQuestion]:
    found = []
    for row in _rows(folder / "questions.jsonl"):
        if not row["answerable"]:
            found.append(KnownQuestion(row["text"]))
            continue
        # Annotators marked longer and shorter answers: any of them.
        texts = tuple(dict.fromkeys(answer["text"] for answer in row["answers"]))
        found.append(KnownQuestion(row["text"], texts, ("|".join(texts),)))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text("utf-8").splitlines())
