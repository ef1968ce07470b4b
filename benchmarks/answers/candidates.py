"""Builds a store of collections with known questions, and records what is found for each question.

    python -m benchmarks.answers.candidates --store DIR --out FILE [--data DIR] [--corpora DIR …]

Each line of the output is a question with the units of its evidence, as the service reads them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.answers.question_sets import (
    OWN,
    KnownQuestion,
    QuestionSet,
    corpus_set,
    folder_sets,
    manual_sets,
    plain,
    squad_sets,
)
from generation.evidence.calibration import DEFAULT_CALIBRATION
from generation.evidence.evidence_reader import Evidence, EvidenceFeatures, EvidenceReader
from generation.evidence.sentence_judge import SentenceJudge
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline import contract as c
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline_cli.local.processes import embedding_process, retrieval_process

_AT_ONCE = 4
# A unit holds an answer if it has this share of its words, or if the answer has this share of its.
_SHARE = 0.75
_WORD = re.compile(r"\w+")


async def build_sets(sets: Iterable[QuestionSet], store: str, embedder: EmbeddingClient) -> None:
    """Builds a collection for each set that the store lacks."""
    opened = Store.open(store)
    for one in sets:
        try:
            opened.alias_in_force(collection_of(one))
            continue
        except NotFound:
            pass
        start = time.monotonic()
        corpus = Corpus([one.corpus], DocumentColumns(sheets=True), leave_out_tables=True)
        options = BuildOptions(
            store=store, collection=collection_of(one), max_bad_rows=1_000, golden_queries=0
        )
        result = await build_corpus(corpus, options, embedder)
        print(
            f"{one.name}: {result.documents} documents, {result.bad_rows} left out "
            f"{[str(row)[:150] for row in result.bad_row_sample][:3]}, "
            f"{time.monotonic() - start:.1f} s",
            flush=True,
        )


def collection_of(one: QuestionSet) -> str:
    """Returns the name of the collection of a set."""
    return f"{one.kind}-{one.name}".lower().replace("_", "-")


def strangers(one: QuestionSet, sets: Sequence[QuestionSet], count: int) -> QuestionSet:
    """Returns a collection with questions of others, which are off topic in it."""
    foreign = [
        KnownQuestion(question.text, off_topic=True)
        for other in sets
        if other.corpus != one.corpus
        for question in other.questions
        if question.answerable
    ]
    asked = random.Random(one.name).sample(foreign, min(count, len(foreign)))
    return replace(one, questions=asked)


async def record(one: QuestionSet, reader: EvidenceReader, out: TextIO) -> None:
    """Writes a line for each question of a set."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: KnownQuestion) -> dict[str, Any]:
        async with slots:
            found = await reader.find(c.Question(text=question.text), collection_of(one), 60.0)
            reading = await reader.read(found, 60.0) if found.units else None
            return _line(one, question, found, reading)

    for line in await asyncio.gather(*map(ask, one.questions)):
        out.write(json.dumps(line, ensure_ascii=False) + "\n")


def _line(
    one: QuestionSet, question: KnownQuestion, found: Evidence, reading: EvidenceFeatures | None
) -> dict[str, Any]:
    by_words = np.empty(0) if reading is None else DEFAULT_CALIBRATION.rank(reading.features)
    units = []
    for row, unit in enumerate(found.units):
        document = found.sources[unit.document].best.id
        units.append(
            {
                "context": found.context(row),
                "text": unit.text,
                "by_words": float(by_words[row]),
                "gold": is_gold(question, document, unit.text),
                "near": question.answerable and holds_passage(question, unit.text),
            }
        )
    return {
        "set": one.name,
        "kind": one.kind,
        "question": question.text,
        "answerable": question.answerable,
        "off_topic": question.off_topic,
        "must": question.must,
        "must_not": question.must_not,
        "passages": question.passages,
        "units": units,
        "features": [] if reading is None else reading.features.round(5).tolist(),
        "signals": {} if reading is None else reading.signals,
    }


def is_gold(question: KnownQuestion, document: str, text: str) -> bool:
    """Returns whether a text of a document answers a question."""
    if not question.answerable or not question.is_answered_by(text):
        return False
    if not any(document.endswith(file) for file in question.files):
        return not question.files
    return holds_passage(question, text)


def holds_passage(question: KnownQuestion, text: str) -> bool:
    """Returns whether a text has most of the words of a passage that answers, or the reverse."""
    words = set(_WORD.findall(plain(text)))
    for passage in question.passages:
        asked = set(_WORD.findall(plain(passage)))
        if len(words & asked) >= _SHARE * min(len(words), len(asked)):
            return True
    return False


def find_sets(options: argparse.Namespace) -> list[QuestionSet]:
    """Returns all sets that are there."""
    sets = folder_sets()
    for root in options.folders:
        sets += [replace(one, kind=root.name) for one in folder_sets(root)]
    for corpora in options.corpora:
        for name in ("manuals", "manuals_train"):
            sets += manual_sets(OWN / name, corpora, name)
    if options.data is not None:
        sets += squad_sets(options.data / "squad-folders")
        for split in ("train", "test"):
            sets.append(corpus_set(f"selqa-{split}", "selqa", options.data / "selqa", split))
    sets.append(corpus_set("answer-judge", "near", OWN / "answer_judge", "train"))
    for split in ("train", "test"):
        sets.append(corpus_set(f"near-{split}", "near", OWN / "near_topic", split))
    return [one for one in sets if not options.only or one.kind in options.only]


async def run(options: argparse.Namespace) -> None:
    """Builds and records."""
    sets = find_sets(options)
    store = str(options.store)
    async with (
        embedding_process() as embedding,
        EmbeddingClient(embedding.address) as embedder,
    ):
        await build_sets(sets, store, embedder)
        async with (
            retrieval_process(options.store, embedding=embedding.address) as router,
            RetrievalClient(router.address) as retriever,
        ):
            judge = SentenceJudge(embedder) if options.judged else None
            reader = EvidenceReader(retriever, embedder, 60.0, judge=judge)
            with options.out.open("w", encoding="utf-8") as out:
                for one in sets:
                    await record(one, reader, out)
                    await record(strangers(one, sets, options.strange), reader, out)
                    print(f"{one.name}: {len(one.questions)} questions", flush=True)


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which sets are read, and the store of the models."""
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Folder with squad-folders and selqa.")
    parser.add_argument(
        "--folders",
        type=Path,
        nargs="*",
        default=[],
        help="More folders like benchmarks/data/folders.",
    )
    parser.add_argument("--corpora", type=Path, nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[], help="Kinds of sets.")


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_set_options(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strange", type=int, default=0, help="Questions of other sets, in each.")
    parser.add_argument("--judged", action="store_true", help="Let the shipped judge read.")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
