"""Snapshots for the gate: texts with known vectors, intact and broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.releases.gate_report import CheckOutcome, GateReport
from nearline.v1 import release_pb2
from tests.index_builder.embedders import DIM, vector_of
from tests.retrieval.small_snapshots import Document, write_snapshot

# The model whose vectors are `vector_of`.
FINGERPRINT = "hash"


def texts(count: int) -> list[str]:
    """Returns distinct texts of a few words."""
    return [f"about thing {number} and what it does" for number in range(count)]


def documents(words: Sequence[str], vectors: NDArray[np.float32] | None = None) -> list[Document]:
    """Returns a document of one chunk for each text, d00000 and so on."""
    if vectors is None:
        vectors = np.stack([vector_of(one) for one in words])
    return [
        Document(id=f"d{at:05d}", vectors=vectors[at : at + 1], text=one, bounds=[(0, len(one))])
        for at, one in enumerate(words)
    ]


def queries(count: int = 60) -> NDArray[np.float32]:
    """Returns query vectors: (n, 8) float32 of unit length."""
    return np.stack([vector_of(f"query {number}") for number in range(count)])


def publish(
    folder: Path,
    made_of: Sequence[Document],
    *,
    fingerprint: str = FINGERPRINT,
    promote: bool = False,
    factory: str = "Flat",
    ef_search: int = 64,
    golden: NDArray[np.float32] | None = None,
    promised_recall: float = 1.0,
    language: str = "",
) -> str:
    """Publishes a snapshot in two shards; returns its id. With a language it has words."""
    return write_snapshot(
        folder,
        made_of,
        shards=2,
        metric="cosine",
        factory=factory,
        ef_search=ef_search,
        fingerprint=fingerprint,
        golden=queries() if golden is None and made_of[0].vectors.shape[1] == DIM else golden,
        promised_recall=promised_recall,
        promote=promote,
        language=language,
    )


def calm(**limits: float | str) -> release_pb2.GateThresholds:
    """Returns thresholds that allow for latencies beside other tests on the same cores."""
    return release_pb2.GateThresholds(max_latency_ratio=100, **limits)  # type: ignore[arg-type]


def failed(report: GateReport) -> list[str]:
    """Returns the names of the checks that failed."""
    return [one.name for one in report.failed]


def made(report: GateReport) -> set[str]:
    """Returns the names of the checks that were run."""
    return {one.name for one in report.checks if one.outcome is not CheckOutcome.SKIPPED}


def message(report: GateReport, name: str) -> str:
    """Returns the message of a check."""
    return {one.name: one.message for one in report.checks}[name]
