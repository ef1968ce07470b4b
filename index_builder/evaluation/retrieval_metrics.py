"""Retrieval quality against judgements, as trec_eval and BEIR define it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearline.errors import InvalidRequest

# Judgements by query id, then document id: the grade, > 0 for relevant.
Judgements = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDataset:
    """A data set in BEIR layout. queries: texts by id, only those that the split judges."""

    corpus: Path
    queries: Mapping[str, str]
    judgements: Judgements


def load(folder: Path, split: str) -> JudgedDataset:
    """Reads a folder with corpus.jsonl, queries.jsonl and qrels/<split>.tsv.

    Raises: InvalidRequest: a file is missing or malformed, or the split does not exist; the message
        lists the splits.
    """
    for name in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / name).is_file():
            raise InvalidRequest(
                f"{folder} has no {name}; a folder in BEIR layout is needed: corpus.jsonl, "
                "queries.jsonl, qrels/<split>.tsv",
                field="data",
            )
    judgements = _read_judgements(folder / "qrels", split)
    texts = _read_queries(folder / "queries.jsonl")
    missing = [query for query in judgements if query not in texts]
    if missing:
        raise InvalidRequest(
            f"split {split!r} judges {len(missing)} queries that {folder / 'queries.jsonl'} does "
            f"not contain, for example {missing[0]!r}",
            field="data",
        )
    queries = {query: texts[query] for query in judgements}
    return JudgedDataset(corpus=folder / "corpus.jsonl", queries=queries, judgements=judgements)


def ndcg(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Returns the normalised discounted cumulative gain of the first k, 0..1.

    The gain is the grade, the discount log2(rank + 1), the ideal all judged documents, best first.
    Source: Järvelin and Kekäläinen 2002, as trec_eval's ndcg_cut computes it.
    """
    gains = [max(grades.get(document, 0), 0) for document in ranked[:k]]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def recall(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Returns the share of the relevant documents among the first k, 0..1."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant & set(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Returns 1 / rank of the first relevant document among the first k, else 0."""
    ranks = (rank for rank, document in enumerate(ranked[:k], 1) if grades.get(document, 0) > 0)
    return 1 / next(ranks, math.inf)


def score(rankings: Mapping[str, Sequence[str]], judgements: Judgements) -> dict[str, float]:
    """Returns the means over all judged queries that have a relevant document.

    Args:
        rankings: Document ids by query, best first; a missing query counts as an empty ranking.
        judgements: Grades by query.
    """
    rows = [
        (ndcg(ranked, grades, 10), recall(ranked, grades, 100), reciprocal_rank(ranked, grades, 10))
        for query, grades in judgements.items()
        if any(grade > 0 for grade in grades.values())
        for ranked in [rankings.get(query, ())]
    ]
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)] or [0.0] * 3
    return dict(zip(("ndcg@10", "recall@100", "mrr@10"), means, strict=True))


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def _read_judgements(folder: Path, split: str) -> dict[str, dict[str, int]]:
    path = folder / f"{split}.tsv"
    if not path.is_file():
        splits = sorted(file.stem for file in folder.glob("*.tsv"))
        raise InvalidRequest(
            f"there is no split {split!r} in {folder}; "
            + (f"there are: {', '.join(splits)}" if splits else "it has no .tsv file"),
            field="split",
        )
    judgements: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        cells = line.split("\t")
        # The first line is a header if its grade is not a number.
        if not line.strip() or (number == 1 and not cells[-1].lstrip("-").isdigit()):
            continue
        try:
            query, document, grade = cells
            judgements.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise InvalidRequest(
                f"{path}:{number} is not query-id, corpus-id and an integer, separated by tabs",
                field="data",
            ) from error
    if not judgements:
        raise InvalidRequest(f"{path} has no judgements", field="data")
    return judgements


def _read_queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            queries[str(record["_id"])] = str(record["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{path}:{number} is not a JSON object with _id and text", field="data"
            ) from error
    return queries
