"""Asks the service the questions of many collections, and counts the outcomes.

    python -m benchmarks.answers.evaluate --store DIR [--data DIR] [--corpora DIR …] [--only KIND …]
        [--strictness strict|balanced|lenient] [--typed lower|capitals|no-mark|typo]
        [--answers FILE]

The collections that the store lacks are built.
Right: the answer holds all that it must, and no value of another entry. Wrong: any other answer to
an answerable question. Shown: not sure, with a passage that answers among those shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.answers.question_sets import (
    OWN,
    KnownQuestion,
    QuestionSet,
    corpus_set,
    folder_sets,
    manual_sets,
    squad_sets,
)
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline import contract as c
from nearline.clients import EmbeddingClient
from nearline.clients.client import AsyncClient
from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline_cli.local.processes import (
    GENERATION_SERVICES,
    embedding_process,
    retrieval_process,
    service_process,
)

_AT_ONCE = 4
_MARKER = re.compile(r" ?\[\d+\]")


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


def with_typo(text: str) -> str:
    """Returns a question with two letters of its longest word swapped."""
    word = max(text.split(), key=len)
    middle = len(word) // 2
    wrong = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
    return text.replace(word, wrong, 1)


TYPED: Final[dict[str, Callable[[str], str]]] = {
    "lower": str.lower,
    "capitals": str.upper,
    "no-mark": lambda text: text.rstrip("?"),
    "typo": with_typo,
}


def judge_answer(question: KnownQuestion, answer: c.Answer) -> str:
    """Returns the outcome of a question: right, wrong, shown, not shown, refused or answered.

    The last is an answer to a question without one.
    """
    if answer.refusal is not None:
        return f"refused: {answer.refusal.reason.value}"
    told = _MARKER.sub("", answer.text)
    not_sure = answer.done is not None and answer.done.not_sure
    if not question.answerable:
        return "not sure" if not_sure else "answered"
    right = question.is_answered_by(told)
    if not_sure:
        # Other passages are shown beside it, whose values are no mistake.
        shown = KnownQuestion(question.text, question.passages, question.must)
        return "shown" if shown.is_answered_by(told) else "not shown"
    return "right" if right else "wrong"


async def ask_set(
    one: QuestionSet,
    client: AsyncClient,
    strictness: c.Strictness | None,
    typed: Callable[[str], str],
) -> list[tuple[KnownQuestion, c.Answer, str]]:
    """Returns each question of a set with its answer and its outcome."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: KnownQuestion) -> tuple[KnownQuestion, c.Answer, str]:
        async with slots:
            asked = c.Question(text=typed(question.text), strictness=strictness)
            answer = await client.ask(asked, collection=collection_of(one), timeout_s=60.0)
        return question, answer, judge_answer(question, answer)

    return await asyncio.gather(*map(ask, one.questions))


def summarize(outcomes: Sequence[tuple[KnownQuestion, str]]) -> dict[str, float]:
    """Returns shares, 0..1, of the answerable and of the unanswerable questions."""
    asked = [outcome for question, outcome in outcomes if question.answerable]
    others = [outcome for question, outcome in outcomes if not question.answerable]
    known, foreign = Counter(asked), Counter(others)
    answered = max(1, known["right"] + known["wrong"])
    return {
        "answerable": len(asked),
        "right": known["right"] / max(1, len(asked)),
        "wrong": known["wrong"] / max(1, len(asked)),
        "right_or_shown": (known["right"] + known["shown"]) / max(1, len(asked)),
        "right_of_answered": known["right"] / answered,
        "refused": sum(n for name, n in known.items() if name.startswith("refused"))
        / max(1, len(asked)),
        "unanswerable": len(others),
        "answered": foreign["answered"] / max(1, len(others)),
        "not_sure": foreign["not sure"] / max(1, len(others)),
    }


async def run(options: argparse.Namespace) -> None:
    """Asks, and prints the table."""
    sets = find_sets(options)
    strictness = c.Strictness(options.strictness) if options.strictness else None
    typed = TYPED.get(options.typed, str)
    by_kind: dict[str, list[tuple[KnownQuestion, str]]] = defaultdict(list)
    lines: list[str] = []
    async with embedding_process() as embedding:
        async with EmbeddingClient(embedding.address) as embedder:
            await build_sets(sets, str(options.store), embedder)
        async with retrieval_process(options.store, embedding=embedding.address) as router:
            words = ("--retrieval", router.address, "--embedding", embedding.address)
            async with (
                service_process("generation", words, ready_services=GENERATION_SERVICES) as service,
                AsyncClient(service.address) as client,
            ):
                for one in sets:
                    for question, answer, outcome in await ask_set(one, client, strictness, typed):
                        by_kind[one.kind].append((question, outcome))
                        record = {
                            "set": one.name,
                            "kind": one.kind,
                            "question": question.text,
                            "outcome": outcome,
                            "answer": str(answer),
                            "must": question.must,
                            "must_not": question.must_not,
                            "passages": question.passages,
                        }
                        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    if options.answers:
        options.answers.write_text("".join(lines), "utf-8")
    for kind, outcomes in by_kind.items():
        shares = summarize(outcomes)
        print(kind, {name: round(value, 3) for name, value in shares.items()})


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    parser.add_argument("--strictness", choices=[one.value for one in c.Strictness])
    parser.add_argument("--typed", choices=TYPED, help="How the questions are typed.")
    parser.add_argument("--answers", type=Path, help="File for all answers, to be read by eye.")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
