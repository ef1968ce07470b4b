"""Asks the service the questions of many collections, and counts the outcomes.

    python -m benchmarks.answers.evaluate --store DIR [--data DIR] [--corpora DIR …] [--only KIND …]
        [--strictness strict|balanced|lenient] [--typed lower|capitals|no-mark|typo]
        [--answers FILE]

The store is one that `benchmarks.answers.candidates` has built; what it lacks is built.
Right: the answer holds all that it must, and no value of another entry. Wrong: any other answer to
an answerable question. Shown: not sure, with a passage that answers among those shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.answers.candidates import add_set_options, build_sets, collection_of, find_sets
from benchmarks.answers.question_sets import KnownQuestion, QuestionSet
from nearline import contract as c
from nearline.clients import EmbeddingClient
from nearline.clients.client import AsyncClient
from nearline_cli.local.processes import (
    GENERATION_SERVICES,
    embedding_process,
    retrieval_process,
    service_process,
)

_AT_ONCE = 4
_MARKER = re.compile(r" ?\[\d+\]")


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
    add_set_options(parser)
    parser.add_argument("--strictness", choices=[one.value for one in c.Strictness])
    parser.add_argument("--typed", choices=TYPED, help="How the questions are typed.")
    parser.add_argument("--answers", type=Path, help="File for all answers, to be read by eye.")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
