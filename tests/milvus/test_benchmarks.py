"""Benchmark and evaluation commands with Milvus, on a small scale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.commands.retrieval import bench_retrieval
from nearline.errors import InvalidRequest
from nearline_cli.main import main
from tests.benchmarks.commands.test_retrieval import run

TOPICS = ("wind tunnel", "blood cell", "steel beam", "radio wave", "wheat field", "coral reef")


def beir(folder: Path) -> Path:
    """Writes a data set of twenty documents on each topic, and a query for each."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as out:
        for number in range(120):
            text = f"Note {number} on the {TOPICS[number % 6]}, with {number} measurements of it."
            out.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    queries = [{"_id": f"q{at}", "text": f"about a {topic}"} for at, topic in enumerate(TOPICS)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = [f"q{number % 6}\td{number}\t1" for number in range(120)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query\tdoc\tscore", *judged]))
    return folder


@pytest.mark.milvus
@pytest.mark.timeout(300)
def test_bench_compares_the_router_with_the_plain_client(
    tmp_path: Path, rng: np.random.Generator, milvus_uri: str
) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, rng.normal(size=(1_050, 16)).astype(np.float32))
    record = run(
        bench_retrieval, "--vectors", str(path), "--queries", "50", "--seconds", "1",
        "--rounds", "1", "--backend", "milvus", "--milvus-uri", milvus_uri,
    )  # fmt: skip
    assert (record["n"], record["backend"], record["zipf"]) == (1_000, "milvus", 1.0)
    for name in ("qps", "p99_ms", "alone_qps", "alone_p99_ms", "hot_qps", "hot_p99_ms"):
        assert record[name] > 0, name  # type: ignore[operator]
    for name in ("recall@10", "alone_recall@10", "hot_recall@10"):
        assert 0.9 <= record[name] <= 1.0, name  # type: ignore[operator]
    # Fifty queries are soon all known.
    assert 0.5 < record["hot_share"] <= 1.0  # type: ignore[operator]
    ratio = record["qps"] / record["alone_qps"]  # type: ignore[operator]
    assert record["ratio_to_alone"] == pytest.approx(ratio, abs=0.01)


@pytest.mark.milvus
@pytest.mark.timeout(300)
def test_eval_compares_milvus_with_faiss(
    tmp_path: Path, milvus_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eval", "retrieval", "--data", str(beir(tmp_path)), "--mode", "dense"]
    given += ["--backend", "milvus", "--milvus-uri", milvus_uri, "--milvus-index", "FLAT"]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--json"])
    assert ended.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["backend"], record["index"], record["queries"]) == ("milvus", "FLAT", 6)
    assert record["faiss_ndcg@10"] > 0.9, "the topics are far from each other"
    assert record["ndcg@10"] == pytest.approx(record["faiss_ndcg@10"], abs=0.005)
    assert record["filtered_shared@10"] == 1.0


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ((), "needs --milvus-uri"),
        (("--milvus-uri", "http://127.0.0.1:1", "--separate"), "has no shards"),
    ],
    ids=["no address", "shards"],
)
def test_bench_rejects_options_without_milvus_support(
    tmp_path: Path, more: tuple[str, ...], text: str
) -> None:
    path = tmp_path / "vectors.npy"
    with pytest.raises(InvalidRequest, match=text):
        run(bench_retrieval, "--vectors", str(path), "--backend", "milvus", *more)
