"""Reads statements whose evidence people labelled, as in SciFact.

A folder has `claims_<split>.jsonl`, with {"query_id", "text", "cited_doc_ids", "evidence":
{document: [{"label": "SUPPORT" or "CONTRADICT", "sentences": [numbers]}]}}, and `abstracts.jsonl`,
with {"doc_id", "title", "sentences"}. A claim without evidence is silent: its source is the two
sentences of each cited document that share most of its wording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from generation.checks.groundedness import GroundednessRules, check_groundedness
from generation.training.label_files import LabelRow, as_list, malformed, read_rows

SUPPORT, CONTRADICT, NONE = LABELS = ("SUPPORT", "CONTRADICT", "NONE")
_LENIENT = GroundednessRules(floor=0.0)
_NEAREST = 2
# Largest file that is read; SciFact's abstracts have 8 MB.
_MAX_BYTES = 256 << 20
_MAX_CHARACTERS = 65_536


class LabelledClaim(NamedTuple):
    """A statement and a source.

    label: SUPPORT, CONTRADICT or NONE. statement: The claim. title: Title of the document.
    source: Sentences of the document, joined by spaces. document: Its id.
    """

    label: str
    statement: str
    title: str
    source: str
    document: str


def load_labelled_claims(folder: Path, split: str) -> list[LabelledClaim]:
    """Reads the pairs of a split, in the order of the file.

    Raises: InvalidRequest: a file is missing, too large or malformed; the message names the file
        and the line.
    """
    documents: dict[str, LabelRow] = {}
    for place, row in read_rows(folder / "abstracts.jsonl", max_bytes=_MAX_BYTES):
        try:
            documents[str(row["doc_id"])] = {
                "title": str(row["title"])[:_MAX_CHARACTERS],
                "sentences": [str(one)[:_MAX_CHARACTERS] for one in as_list(row["sentences"])],
            }
        except (KeyError, TypeError) as error:
            raise malformed(place, 'doc_id, title and a list "sentences"') from error
    found: list[LabelledClaim] = []
    for place, row in read_rows(folder / f"claims_{split}.jsonl", max_bytes=_MAX_BYTES):
        try:
            found += _claims(row, documents)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise malformed(
                place, "text, cited_doc_ids and evidence by sentences that abstracts.jsonl has"
            ) from error
    return found


def _claims(row: LabelRow, documents: dict[str, LabelRow]) -> Iterator[LabelledClaim]:
    statement = str(row["text"])[:_MAX_CHARACTERS]
    for document in map(str, row["cited_doc_ids"]):
        gold = row["evidence"].get(document)
        if not gold and row["evidence"]:
            continue  # Cited, but not labelled.
        held = documents[document]
        sentences: list[str] = held["sentences"]
        if gold:
            label = str(gold[0]["label"])
            if label not in (SUPPORT, CONTRADICT):
                raise ValueError(label)
            rows = sorted({number for one in gold for number in one["sentences"]})
        else:
            label, rows = NONE, _nearest(statement, sentences)
        source = " ".join(sentences[number] for number in rows)
        yield LabelledClaim(label, statement, held["title"], source, document)


def _nearest(statement: str, sentences: Sequence[str]) -> list[int]:
    scored = [check_groundedness(statement, one, rules=_LENIENT).score for one in sentences]
    return sorted(sorted(range(len(sentences)), key=lambda at: -scored[at])[:_NEAREST])
