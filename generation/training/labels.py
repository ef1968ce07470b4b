"""Reads labelled questions, with the spans of documents that answer them.

Two layouts are supported:
- SciFact: `claims_<split>.jsonl` with `evidence` {document: [{"sentences"}]} as sentence numbers,
  and `abstracts.jsonl` with the sentences of each document; joined by spaces, they are its text.
- SQuAD: `questions_<split>.jsonl` or `questions.jsonl` with {"query_id", "text", "doc_id",
  "answers": [{"text", "answer_start"}]}. If answers is empty, the collection has no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from generation.training.label_files import LabelRow, as_list, malformed, read_rows
from nearline.errors import InvalidRequest

CLAIMS = "claims"
QUESTIONS = "questions"


class LabelSpan(NamedTuple):
    """Code points start..end-1 of a document's text, and the text there."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledQuestion:
    """A question, the spans that answer it by document, and the documents about its subject.

    cited: Documents about its subject, including all with spans; there may be some without an
        answer.
    short: Whether the spans are short answers, not whole sentences.
    """

    id: str
    text: str
    spans: Mapping[str, Sequence[LabelSpan]]
    cited: frozenset[str]
    short: bool = False

    @property
    def has_answer(self) -> bool:
        """True if the collection answers it."""
        return bool(self.spans)


def load_labels(folder: Path, split: str) -> list[LabelledQuestion]:
    """Reads the labelled questions of a split, in the order of the file.

    Raises: InvalidRequest: there is no such split, or a file is malformed; the message names the
        file and the line.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"there is no folder {folder}; pass one with labels", field="data")
    claims = folder / f"{CLAIMS}_{split}.jsonl"
    if claims.is_file():
        return _claims(claims, folder / "abstracts.jsonl")
    for name in (f"{QUESTIONS}_{split}.jsonl", f"{QUESTIONS}.jsonl"):
        if (folder / name).is_file():
            return [_question(*row) for row in read_rows(folder / name)]
    there = sorted(path.name for kind in (CLAIMS, QUESTIONS) for path in folder.glob(f"{kind}*"))
    raise InvalidRequest(
        f"{folder} has no labelled questions of split {split!r}: neither {claims.name} nor "
        f"{QUESTIONS}_{split}.jsonl; it has {', '.join(there) or 'none of any split'}",
        field="split",
    )


def drop_overlapping(
    questions: Sequence[LabelledQuestion], others: Sequence[LabelledQuestion]
) -> list[LabelledQuestion]:
    """Returns the questions that share no cited document with the others."""
    seen = frozenset[str]().union(*(one.cited for one in others))
    return [one for one in questions if not one.cited & seen]


def _claims(path: Path, abstracts: Path) -> list[LabelledQuestion]:
    texts: dict[str, list[LabelSpan]] = {}
    for place, row in read_rows(abstracts):
        try:
            texts[str(row["doc_id"])] = _joined([str(one) for one in as_list(row["sentences"])])
        except (KeyError, TypeError) as error:
            raise malformed(place, 'doc_id and a list "sentences"') from error
    found = []
    for place, row in read_rows(path):
        try:
            spans = {
                document: [
                    texts[document][number]
                    for number in sorted({n for one in sets for n in one["sentences"]})
                ]
                for document, sets in dict(row["evidence"]).items()
            }
            cited = frozenset(map(str, row.get("cited_doc_ids", ()))) | frozenset(spans)
            found.append(
                LabelledQuestion(
                    id=str(row["query_id"]),
                    text=str(row["text"]),
                    spans={document: held for document, held in spans.items() if held},
                    cited=cited,
                )
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise malformed(
                place, f"query_id, text and evidence by sentences that {abstracts.name} has"
            ) from error
    return found


def _question(place: str, row: LabelRow) -> LabelledQuestion:
    try:
        document = row.get("doc_id")
        cited = frozenset() if document is None else frozenset({str(document)})
        spans = [
            LabelSpan(
                int(one["answer_start"]), int(one["answer_start"]) + len(one["text"]), one["text"]
            )
            for one in as_list(row.get("answers") or [])
        ]
        if spans and not cited:
            raise KeyError("doc_id")
        return LabelledQuestion(
            id=str(row["query_id"]),
            text=str(row["text"]),
            spans={one: spans for one in cited} if spans else {},
            cited=cited,
            short=True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise malformed(
            place, 'query_id, text, doc_id and answers [{"text", "answer_start"}]'
        ) from error


def _joined(sentences: Sequence[str]) -> list[LabelSpan]:
    spans, at = [], 0
    for sentence in sentences:
        spans.append(LabelSpan(at, at + len(sentence), sentence))
        at += len(sentence) + 1
    return spans
