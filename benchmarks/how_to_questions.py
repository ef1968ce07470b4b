"""Writes the questions of `benchmarks/data/how_to` with their corpus, the documentation of Python.

    python -m benchmarks.how_to_questions --out DIR

Makes `corpus.jsonl`, `questions_train.jsonl` and `questions_test.jsonl` for `nearline eval rag`.
Every second question is of the test split. The answer is the first sentence of the entry.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from index_builder.documents import python_docs
from nearline.sentences import sentences

QUESTIONS = Path(__file__).parent / "data" / "how_to" / "questions.jsonl"


def write_questions(folder: Path) -> None:
    """Writes corpus and questions; questions about entries that this Python lacks are left out."""
    corpus = folder / "corpus.jsonl"
    python_docs.write_corpus(corpus)
    rows = map(json.loads, corpus.read_text("utf-8").splitlines())
    texts = {str(row["id"]): str(row["text"]) for row in rows}
    asked = list(map(json.loads, QUESTIONS.read_text("utf-8").splitlines()))
    for split, some in (("train", asked[::2]), ("test", asked[1::2])):
        lines = [
            json.dumps(
                {
                    "query_id": row["query_id"],
                    "text": row["text"],
                    "doc_id": row["doc_id"],
                    "answers": _first_sentence(texts[row["doc_id"]]) if row["answered"] else [],
                }
            )
            for row in some
            if row["doc_id"] in texts
        ]
        (folder / f"questions_{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def _first_sentence(text: str) -> list[dict[str, object]]:
    start, end = sentences(text)[0]
    return [{"text": text[start:end], "answer_start": start}]


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=Path, help="Folder to write.")
    write_questions(parser.parse_args().out)


if __name__ == "__main__":
    main()
