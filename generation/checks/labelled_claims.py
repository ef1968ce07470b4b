"""Reads statements whose evidence people labelled, as in SciFact.

A folder has `claims_<split>.jsonl`, with {"query_id", "text", "cited_doc_ids", "evidence":
{document: [{"label": "SUPPORT" or "CONTRADICT", "sentences": [numbers]}]}}, and `abstracts.jsonl`,
with {"doc_id", "title", "sentences"}. A claim without evidence is silent: its source is the two
sentences of each cited document that share most of its wording.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from generation.checks.groundedness import GroundednessRules, check_groundedness
from nearline.errors import InvalidRequest

_Row: TypeAlias = dict[str, Any]  # JSON.
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
    documents: dict[str, _Row] = {}
    for place, row in _rows(folder / "abstracts.jsonl"):
        try:
            documents[str(row["doc_id"])] = {
                "title": str(row["title"])[:_MAX_CHARACTERS],
                "sentences": [str(one)[:_MAX_CHARACTERS] for one in _listed(row["sentences"])],
            }
        except (KeyError, TypeError) as error:
            raise _malformed(place, 'doc_id, title and a list "sentences"') from error
    found: list[LabelledClaim] = []
    for place, row in _rows(folder / f"claims_{split}.jsonl"):
        try:
            found += _claims(row, documents)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _malformed(
                place, "text, cited_doc_ids and evidence by sentences that abstracts.jsonl has"
            ) from error
    return found


def _claims(row: _Row, documents: dict[str, _Row]) -> Iterator[LabelledClaim]:
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


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def _rows(path: Path) -> Iterator[tuple[str, _Row]]:
    if not path.is_file():
        raise InvalidRequest(f"file {path} is missing; the labels need it", field="data")
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidRequest(
            f"file {path} has {path.stat().st_size} bytes, {_MAX_BYTES} are allowed; pass fewer "
            "labels",
            field="data",
        )
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _malformed(place, "its fields") from error
        if not isinstance(row, dict):
            raise _malformed(place, "its fields")
        yield place, row


def _malformed(place: str, fields: str) -> InvalidRequest:
    return InvalidRequest(f"{place} is not a JSON object with {fields}", field="data")
