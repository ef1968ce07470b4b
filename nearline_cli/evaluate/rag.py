"""`nearline eval rag`: answers and refusals against labels, through the real services."""

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
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from generation.training.evaluation import CalibrationEvaluation
    from generation.training.labels import LabelledQuestion


def rag(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder with corpus.jsonl and labels: claims_SPLIT.jsonl with abstracts.jsonl, as "
            "SciFact has them, or questions_SPLIT.jsonl, as SQuAD has them.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Labels to measure on.")] = "dev",
    train_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Labels to learn from; measured without, too.")
    ] = "train",
    off_topic: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Questions about something else: .jsonl with text. "
            "\\[default: queries.jsonl of the folders beside DIR]",
        ),
    ] = None,
    target_risk: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0.0, max=1.0, help="Share of answers without evidence allowed."
        ),
    ] = 0.15,
    shards: Annotated[int, typer.Option(metavar="N", help="Shards of the index built.")] = 4,
    embedding: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Embedding service. \\[default: one is started]"),
    ] = "",
    store: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Store whose current snapshot has the corpus. \\[default: build it]"
        ),
    ] = "",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with the curves.")
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Measure answers: offsets, evidence sentences, refusals, time to the first words.

    What is learned from labels is measured twice: from all of the training split, and from its
    questions that share no document with those measured on. The last row is the shipped default.
    """
    # Before minutes of measuring, not after them.
    if html is not None and not html.absolute().parent.is_dir():
        raise InvalidRequest(f"there is no folder {html.parent} for --html; make it", field="html")
    questions = _load(data, split, train_split, off_topic)
    if not store and not (data / "corpus.jsonl").is_file():
        raise InvalidRequest(
            f"{data} has no corpus.jsonl; a folder with corpus.jsonl and labels is needed, or "
            "--store with what was built of it",
            field="data",
        )

    async def run() -> list[tuple[dict[str, object], CalibrationEvaluation]]:
        with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
            async with open_embedder(embedding, quiet=as_json) as client:
                if not store:
                    plan = BuildPlan(shards=shards, embedding=client.address)
                    await build_dataset(folder, data / "corpus.jsonl", plan, client, as_json)
                with open_progress(as_json) as shown:
                    place = Path(store or folder)
                    return await measure_calibrations(place, client, questions, target_risk, shown)

    began = time.monotonic()
    rows = asyncio.run(run())
    about = {
        "split": split,
        "questions": len(questions.test),
        "answerable": sum(one.has_answer for one in questions.test),
        "off_topic_questions": ", ".join(questions.names) or None,
        "seconds": round(time.monotonic() - began, 1),
    }
    records = [row | about for row, _ in rows]
    if html is not None:
        from nearline_cli.evaluate.rag_report import render_rag_report

        html.write_text(
            render_rag_report(data.name, records, [judged for _, judged in rows]), "utf-8"
        )
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
        raise InvalidRequest(f"split {split!r} of {data} has no question", field="split")
    try:
        train = labels.load_labels(data, train_split)
    except InvalidRequest as error:
        output.console(error=True).print(f"nothing is learned: {error.message}", markup=False)
        train = []
    names, strange = _strange(data.resolve(), off_topic)
    return QuestionSets(
        test=test,
        train=[one for one in train if one.id not in {other.id for other in test}],
        strange=strange,
        names=names,
    )


def _strange(data: Path, off_topic: Path | None) -> tuple[list[str], list[LabelledQuestion]]:
    """Reads questions about something else, and says from where."""
    if off_topic is not None:
        return [str(off_topic)], _read_strange(off_topic)
    names, found = [], []
    for file in sorted(data.parent.glob("*/queries.jsonl")):
        # Nobody asked for what happens to lie there: what cannot be read is passed over.
        with contextlib.suppress(InvalidRequest):
            if file.parent != data:
                found += _read_strange(file)
                names.append(file.parent.name)
    return names, found


def _read_strange(file: Path) -> list[LabelledQuestion]:
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
