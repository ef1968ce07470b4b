"""The evaluation command with Milvus, on a small scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nearline_cli.main import main

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
