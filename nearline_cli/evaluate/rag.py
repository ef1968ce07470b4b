"""`nearline eval rag`: measures answers and refusals against labels, through the real services."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.evaluate.beir_build import BuildPlan, build_dataset
from nearline_cli.evaluate.rag_measurement import QuestionSets, measure_calibrations
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from generation.training.labels import LabelledQuestion


def rag(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder with corpus.jsonl and labels: claims_SPLIT.jsonl with abstracts.jsonl, as "
            "in SciFact, or questions_SPLIT.jsonl, as in SQuAD.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Labels to measure on.")] = "dev",
    train_split: Annotated[
        str,
        typer.Option(metavar="SPLIT", help="Labels to calibrate on; also measured without them."),
    ] = "train",
    off_topic: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Off-topic questions: .jsonl with text. \\[default: queries.jsonl of the "
            "neighbouring folders]",
        ),
    ] = None,
    target_risk: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0.0, max=1.0, help="Allowed share of answers without evidence."
        ),
    ] = 0.15,
    shards: Annotated[int, typer.Option(metavar="N", help="Number of shards to build.")] = 4,
    embedding: options.EmbeddingOption = "",
    store: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Store whose current snapshot contains the corpus. \\[default: build it]",
        ),
    ] = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Measure citations, evidence sentences, outcomes and the time to the first word of answers.

    For example: nearline eval rag --data scifact

    The calibration is measured twice: learned from the whole training split, and from its questions
    that share no document with the tested ones. The last row is the shipped default.
    """
    # Checked before minutes of measuring.
    questions = _load(data, split, train_split, off_topic)
    if not store and not (data / "corpus.jsonl").is_file():
        raise InvalidRequest(
            f"{data} has no corpus.jsonl; use a folder with corpus.jsonl and labels, or "
            "--store with a snapshot of it",
            field="data",
        )

    async def run() -> list[dict[str, object]]:
        with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
            async with open_embedder(embedding, quiet=as_json) as client:
                if not store:
                    plan = BuildPlan(shards=shards, embedding=client.address)
                    await build_dataset(folder, data / "corpus.jsonl", plan, client, as_json)
                with open_progress(as_json) as progress:
                    return await measure_calibrations(
                        Path(store or folder), client, questions, target_risk, progress
                    )

    began = time.monotonic()
    rows = asyncio.run(run())
    about = {
        "split": split,
        "questions": len(questions.test),
        "answerable": sum(question.has_answer for question in questions.test),
        "off_topic_questions": ", ".join(questions.names) or None,
        "seconds": round(time.monotonic() - began, 1),
    }
    records = [row | about for row in rows]
    if as_json:
        for record in records:
            output.print_json(record)
        return
    names = list(dict.fromkeys(name for record in records for name in record))
    output.print_table(
        ("figure", *(str(record["trained_on"]) for record in records)),
        [(name, *(record.get(name) for record in records)) for name in names[1:]],
    )


def _load(data: Path, split: str, train_split: str, off_topic: Path | None) -> QuestionSets:
    from generation.training import labels

    test = labels.load_labels(data, split)
    if not test:
        raise InvalidRequest(f"split {split!r} of {data} has no questions", field="split")
    try:
        train = labels.load_labels(data, train_split)
    except InvalidRequest as error:
        output.console(error=True).print(f"no calibration is learned: {error.message}")
        train = []
    names, off_topic_questions = _read_off_topic(data.resolve(), off_topic)
    return QuestionSets(
        test=test,
        train=[question for question in train if question.id not in {other.id for other in test}],
        off_topic=off_topic_questions,
        names=names,
    )


def _read_off_topic(data: Path, off_topic: Path | None) -> tuple[list[str], list[LabelledQuestion]]:
    """Reads off-topic questions; returns where they came from, and the questions."""
    if off_topic is not None:
        return [str(off_topic)], _read_questions(off_topic)
    names, found = [], []
    for file in sorted(data.parent.glob("*/queries.jsonl")):
        # These files were not named by the user: unreadable ones are skipped.
        with contextlib.suppress(InvalidRequest):
            if file.parent != data:
                found += _read_questions(file)
                names.append(file.parent.name)
    return names, found


def _read_questions(file: Path) -> list[LabelledQuestion]:
    from generation.training.labels import LabelledQuestion

    if not file.is_file():
        raise InvalidRequest(f"there is no {file}; check --off-topic", field="off_topic")
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            text = str(json.loads(line)["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{file}:{number} is not a JSON object with text", field="off_topic"
            ) from error
        found.append(LabelledQuestion(id=str(number), text=text, spans={}, cited=frozenset()))
    return found
