"""The result of a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from index_builder.documents.detected_lists import DetectedList
from index_builder.lineage.document_merger import MergeSummary
from index_builder.options.devices import CPU
from index_builder.options.index_selection import IndexChoice
from nearline.v1 import release_pb2, snapshot_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """The result of a build.

    epoch: Number of the alias record; None if the build was not promoted.
    embedded: Chunks embedded by this run. resumed: Chunks embedded by an earlier, killed run.
    recall_at_10: Share of the exact ten best that the index finds with its defaults, 0..1.
    words: Distinct words of the lexical index; 0 if there is none.
    dense_weight: Weight of the dense leg in hybrid search, 0..1; None without a lexical index.
    tuned_ndcg_at_10: nDCG@10 of the queries that it was tuned on; None if it was not tuned.
    bytes: Size of the snapshot. seconds: Duration by stage.
    lists: Attributes that were read as lists without being declared.
    choice: How the index was chosen; None if nothing was measured.
    device: Device of the build, cpu or cuda:N. device_notes: Work that the CPU did instead of the
        GPU, with the reasons.
    reranker: What was trained, with weight 0 if it was left out; None if nothing was.
    answers: Calibration of answers; None if there is none.
    merged: Effects of live changes and of the previous snapshot; None if there were none.
    behaviour: Training on interactions, as one JSON object; None if there is none.
    models: Versions in the model registry, as text.
    gate: Verdict of the gate; None if the gate did not run.
    """

    snapshot_id: str
    collection: str
    folder: Path
    epoch: int | None
    documents: int
    chunks: int
    embedded: int
    resumed: int
    truncated: int
    dim: int
    index_factory: str
    recall_at_10: float
    words: int
    dense_weight: float | None
    tuned_ndcg_at_10: float | None
    bytes: int
    bad_rows: int
    bad_row_sample: Sequence[str]
    seconds: Mapping[str, float]
    lists: Sequence[DetectedList] = ()
    choice: IndexChoice | None = None
    device: str = CPU
    device_notes: Sequence[str] = ()
    reranker: snapshot_pb2.RerankerCard | None = None
    answers: snapshot_pb2.AnswerCard | None = None
    merged: MergeSummary | None = None
    behaviour: Mapping[str, object] | None = None
    models: Sequence[str] = ()
    gate: release_pb2.GateVerdict | None = None

    def record(self) -> dict[str, object]:
        """Returns the result as one JSON object."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        tuned = record.pop("tuned_ndcg_at_10")
        return record | {
            "folder": str(self.folder),
            "lists": [one._asdict() for one in self.lists],
            "choice": None if self.choice is None else self.choice.record(),
            "recall@10": round(record.pop("recall_at_10"), 4),
            "reranker": None if self.reranker is None else _ranking(self.reranker),
            "answers": None if self.answers is None else _figures(self.answers),
            "merged": None if self.merged is None else asdict(self.merged),
            "gate": None if self.gate is None else _verdict(self.gate),
            "tuned_ndcg@10": None if tuned is None else round(tuned, 4),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "total_s": round(sum(self.seconds.values()), 3),
        }


def _verdict(gate: release_pb2.GateVerdict) -> dict[str, object]:
    return {
        "passed": gate.passed,
        "failed": list(gate.failed),
        "forced_because": gate.forced_because,
        "report": gate.report,
    }


def _ranking(card: snapshot_pb2.RerankerCard) -> dict[str, object]:
    """Returns what a reranker learned from, and what it brings."""
    return {
        "queries": card.queries,
        "held_out_queries": card.held_out_queries,
        "weight": card.weight,
        "search_ndcg@10": round(card.search_ndcg_at_10, 4),
        "reranked_ndcg@10": round(card.reranked_ndcg_at_10, 4),
    }


def _figures(answers: snapshot_pb2.AnswerCard) -> dict[str, object]:
    """Returns the cross-validation of a calibration."""
    return {
        "questions": answers.questions,
        "answerable": answers.answerable,
        "auroc_off_topic": round(answers.topic_auroc, 4),
        "auroc_no_evidence": round(answers.evidence_auroc, 4),
        "target_risk": answers.target_risk,
        "risk": round(answers.risk, 4),
        "coverage": round(answers.coverage, 4),
    }
