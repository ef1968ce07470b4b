"""Measures calibrations one after the other, through real services, for `nearline eval rag`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from nearline_cli.compose.calibration import draft_store
from nearline_cli.evaluate import rag_end_to_end
from nearline_cli.local.processes import GENERATION_SERVICES, retrieval_process, service_process
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from generation.evidence.calibration import Calibration
    from generation.training.dataset import QuestionExample
    from generation.training.evaluation import CalibrationEvaluation
    from generation.training.labels import LabelledQuestion
    from index_builder.execution.progress import Progress

TRAIN = "train"
DISJOINT = "train, disjoint documents"
SHIPPED = "shipped default"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSets:
    """Labelled questions of an evaluation.

    test: Questions to measure on. train: Questions to calibrate on; may be empty. off_topic:
        Questions of other collections, from the data sets named `names`.
    """

    test: Sequence[LabelledQuestion]
    train: Sequence[LabelledQuestion]
    off_topic: Sequence[LabelledQuestion]
    names: Sequence[str]


async def measure_calibrations(
    place: Path,
    client: EmbeddingClient,
    questions: QuestionSets,
    target_risk: float,
    progress: Progress,
) -> list[dict[str, object]]:
    """Measures three calibrations: from all training questions, from disjoint ones, and as shipped.

    Args:
        place: Folder of the store whose current snapshot is measured.
        client: Client of the embedding service.
        questions: Labelled questions.
        target_risk: Allowed share of answers without evidence, 0..1.
        progress: Reports the stages.
    Returns: The figures of each calibration, by name.
    """
    from generation.evidence import calibration
    from generation.training.calibrator import fit_calibration
    from generation.training.dataset import DatasetBuilder
    from generation.training.evaluation import evaluate_calibration
    from generation.training.labels import drop_overlapping
    from index_builder.execution.progress import StageClock

    clock = StageClock(progress)
    store = Store(place)
    current = store.alias_in_force(options.DEFAULT_COLLECTION).current
    manifest = store.manifest(options.DEFAULT_COLLECTION, current)
    async with (
        retrieval_process(place, embedding=client.address) as router,
        RetrievalClient(router.address) as retriever,
    ):
        dataset = DatasetBuilder(retriever, client, documents=int(manifest.documents))
        count = len(questions.test) + len(questions.off_topic) + len(questions.train)
        with clock.stage("read", count, "questions") as advance:
            test = await dataset.observe(questions.test, advance, inside=True)
            off_topic = await dataset.observe(questions.off_topic, advance)
            train = await dataset.observe(questions.train, advance, hide=True)
    disjoint = {one.id for one in drop_overlapping(questions.train, questions.test)}
    regimes: list[tuple[str, Sequence[QuestionExample]]] = [
        (TRAIN, train),
        (DISJOINT, [question for question in train if question.question.id in disjoint]),
        (SHIPPED, []),
    ]
    rows = []
    for name, learned in regimes:
        used = calibration.choose_calibration(
            calibration.DEFAULT_CALIBRATION,
            judged=all(math.isfinite(one.signals["answer_best"]) for one in test),
        )
        if name != SHIPPED:
            try:
                used = fit_calibration(learned, target_risk=target_risk)
            except InvalidRequest as error:
                output.console(error=True).print(f"{name}: {error.message}")
                continue
        evaluation = evaluate_calibration(used, test, off_topic)
        folder = store.snapshot_folder(options.DEFAULT_COLLECTION, current)
        with clock.stage("ask", len(questions.test), "questions") as advance:
            served = await _serve(folder, manifest, used, client, questions.test, advance)
        record = {"trained_on": name, "training_questions": len(learned)}
        rows.append(record | _figures(used, evaluation) | served)
    return rows


async def _serve(
    folder: Path,
    manifest: snapshot_pb2.Manifest,
    used: Calibration,
    client: EmbeddingClient,
    questions: Sequence[LabelledQuestion],
    advance: Callable[[int], None],
) -> dict[str, object]:
    """Measures real services over the same files, with a different calibration in the manifest."""
    from generation.evidence import calibration

    draft = snapshot_pb2.Manifest()
    draft.CopyFrom(manifest)
    draft.ClearField("answers")
    if used.calibrated:
        draft.answers.CopyFrom(calibration.to_proto(used))
    async with contextlib.AsyncExitStack() as stack:
        store = stack.enter_context(draft_store(folder, draft))
        router = await stack.enter_async_context(retrieval_process(store, embedding=client.address))
        generator = await stack.enter_async_context(
            service_process(
                "generation",
                ("--retrieval", router.address, "--embedding", client.address),
                ready_services=GENERATION_SERVICES,
            )
        )
        return await rag_end_to_end.measure_answers(
            questions,
            options.DEFAULT_COLLECTION,
            advance,
            generation=generator.address,
            retrieval=router.address,
        )


def _figures(used: Calibration, evaluation: CalibrationEvaluation) -> dict[str, object]:
    at, half = evaluation.operating, evaluation.half
    return {
        "sentence_recall@3": _rounded(evaluation.recall_inside[3]),
        "sentence_recall@5": _rounded(evaluation.recall_inside[5]),
        "sentence_recall_end_to_end@3": _rounded(evaluation.recall_found[3]),
        "sentence_recall_end_to_end@5": _rounded(evaluation.recall_found[5]),
        "auroc_off_topic": _rounded(evaluation.off_topic),
        "auroc_no_evidence": _rounded(evaluation.no_evidence),
        "target_risk": used.target_risk or None,
        "risk_at_target": _rounded(at.risk),
        "coverage_at_target": _rounded(at.coverage),
        "answerable_kept": _rounded(evaluation.answerable_kept),
        "unanswerable_refused": _rounded(evaluation.unanswerable_refused),
        "risk@0.5": _rounded(half.risk),
        "on_topic_kept": _rounded(evaluation.kept),
        "off_topic_kept": _rounded(evaluation.strange_kept),
        "topic_threshold": _rounded(used.topic_threshold),
        "evidence_threshold": _rounded(used.evidence_threshold),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
