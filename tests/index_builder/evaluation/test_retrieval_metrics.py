"""Metrics agree with hand calculation; malformed data sets are refused."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import pytest

from index_builder.evaluation import retrieval_metrics
from nearline.errors import InvalidRequest

GRADES = {"a": 2, "b": 1, "c": 0, "d": 1}


def test_ndcg_is_gain_over_ideal_gain() -> None:
    # a at 2, d at 4; ideal: 2, 1, 1.
    gain = 2 / log2(3) + 1 / log2(5)
    ideal = 2 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert retrieval_metrics.ndcg(["x", "a", "c", "d"], GRADES, 10) == pytest.approx(gain / ideal)
    assert retrieval_metrics.ndcg(["a", "b", "d"], GRADES, 10) == pytest.approx(1.0)
    assert retrieval_metrics.ndcg(["a", "x"], GRADES, 1) == 1.0
    assert retrieval_metrics.ndcg([], GRADES, 10) == 0.0
    assert retrieval_metrics.ndcg(["a"], {"a": 0}, 10) == 0.0


def test_recall_and_reciprocal_rank_count_relevant_documents() -> None:
    assert retrieval_metrics.recall(["a", "c", "x"], GRADES, 100) == pytest.approx(1 / 3)
    assert retrieval_metrics.recall(["c", "a"], GRADES, 1) == 0.0
    assert retrieval_metrics.reciprocal_rank(["c", "x", "b"], GRADES, 10) == pytest.approx(1 / 3)
    assert retrieval_metrics.reciprocal_rank(["c", "x", "b"], GRADES, 2) == 0.0


def test_a_query_without_results_counts_and_one_without_judgements_does_not() -> None:
    judgements = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 0}}
    scores = retrieval_metrics.score({"q1": ["a"], "q3": ["c"]}, judgements)
    assert scores == {"ndcg@10": 0.5, "recall@100": 0.5, "mrr@10": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "a", "text": "x"}) + "\n")
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "one"}\n{"_id": 2, "text": "two"}\n'
    )
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\tb\t0\n")
    (tmp_path / "qrels" / "dev.tsv").write_text("2\ta\t2\n")
    return tmp_path


def test_a_split_has_its_own_queries_and_its_header_is_skipped(folder: Path) -> None:
    test = retrieval_metrics.load(folder, "test")
    assert (test.queries, test.judgements) == ({"q1": "one"}, {"q1": {"a": 1, "b": 0}})
    assert retrieval_metrics.load(folder, "dev").judgements == {"2": {"a": 2}}


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InvalidRequest, match=f"has no {name}"):
        retrieval_metrics.load(folder, "test")


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("qrels/test.tsv", "q1\ta\t1\nq1 b 0\n", "test.tsv:2 is not query-id"),
        ("qrels/test.tsv", "q1\ta\t1\nq9\tb\t1\n", "judges 1 queries .* for example 'q9'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "has no judgements"),
        ("queries.jsonl", '{"_id": "q1"}\n', "queries.jsonl:1 is not a JSON object"),
    ],
)
def test_a_malformed_file_is_named(folder: Path, path: str, content: str, said: str) -> None:
    (folder / path).write_text(content)
    with pytest.raises(InvalidRequest, match=said):
        retrieval_metrics.load(folder, "test")


def test_an_unknown_split_error_lists_the_splits(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no split 'train' .* there are: dev, test"):
        retrieval_metrics.load(folder, "train")
