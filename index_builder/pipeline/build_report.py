"""The quality report of a build, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.vector_file import VectorFile
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.options.index_selection import IndexChoice
from nearline.v1 import snapshot_pb2

_BINS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Chunk lengths in tokens: counts[i] chunks have edges[i] <= tokens < edges[i + 1]."""

    edges: Sequence[int]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """The quality report of a build.

    golden_queries, recall_at_10: Recall of the index, with its default widths, against an exact
        scan of the same vectors. It does not measure whether the texts found are relevant.
    language, words: Language and size of the lexical index; 0 words if there is none.
    search_weights: Weight of each field in lexical search; those of titles and texts are 1 if they
        are missing. search_languages: Language of attributes that have another one.
    synonym_rules: Number of rules of its synonyms.
    dense_weight: Weight of the dense leg in hybrid search, 0..1; weight_origin: "tuned" or
        "default". tuning_ndcg_at_10: Its mean nDCG@10 over the tuning_queries.
    truncated: Number of chunks that exceed the model's limit, so their ends were not embedded.
    tokens: Lengths of the chunks embedded for this snapshot, in tokens of the model; None if the
        user brought the vectors or all were inherited.
    bytes: Size of the files by name, over all shards. seconds: Duration by stage.
    choice: `IndexChoice.record()`; None if nothing was measured.
    device: Device of the build, cpu or cuda:N. device_notes: Work that the CPU did instead of the
        GPU, with the reasons.
    """

    snapshot_id: str
    collection: str
    sources: Sequence[Mapping[str, str | int]]
    documents: int
    bad_rows: int
    bad_row_sample: Sequence[str]
    chunks: int
    max_chunks_per_document: int
    truncated: int
    tokens: Histogram | None
    model: str
    fingerprint: str
    dim: int
    metric: str
    index_factory: str
    faiss_version: str
    ef_search: int
    nprobe: int
    documents_per_shard: Sequence[int]
    language: str
    words: int
    search_weights: Mapping[str, float]
    search_languages: Mapping[str, str]
    synonym_rules: int
    dense_weight: float
    weight_origin: str
    tuning_queries: int
    tuning_ndcg_at_10: float
    golden_queries: int
    recall_at_10: float
    bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    choice: Mapping[str, object] | None = None
    device: str = CPU_DEVICE.name
    device_notes: Sequence[str] = ()

    def to_json(self) -> str:
        """Returns the report as a JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def make_report(
    manifest: snapshot_pb2.Manifest,
    vectors: VectorFile,
    bad_rows: BadRows,
    seconds: Mapping[str, float],
    folder: Path,
    choice: IndexChoice | None = None,
    device: BuildDevice = CPU_DEVICE,
) -> BuildReport:
    """Makes the report.

    Args:
        manifest: Manifest of the snapshot; its list of files is not needed.
        vectors: Has the length of every chunk.
        bad_rows: Malformed rows left out.
        seconds: Duration by stage so far.
        folder: Folder of the snapshot, for the sizes of its files.
        choice: How the index was chosen; None if nothing was measured.
        device: Device of the build.
    """
    tokens, truncated = vectors.lengths(manifest.chunks)
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*.*")):
        sizes[path.name] = sizes.get(path.name, 0) + path.stat().st_size
    return BuildReport(
        snapshot_id=manifest.snapshot_id,
        collection=manifest.collection,
        sources=[
            {"uri": source.uri, "documents": source.documents, "bad_rows": source.bad_rows}
            for source in manifest.sources
        ],
        documents=manifest.documents,
        bad_rows=bad_rows.count,
        bad_row_sample=[str(row) for row in bad_rows.sample],
        chunks=manifest.chunks,
        max_chunks_per_document=manifest.max_chunks_per_document,
        truncated=int(truncated.sum()),
        tokens=_histogram(tokens[tokens > 0]) if tokens.any() else None,
        model=manifest.embedder.model,
        fingerprint=manifest.embedder.fingerprint,
        dim=manifest.dim,
        metric=manifest.metric,
        index_factory=manifest.index_factory,
        faiss_version=manifest.faiss_version,
        ef_search=manifest.default_ef_search,
        nprobe=manifest.default_nprobe,
        documents_per_shard=[shard.documents for shard in manifest.shards],
        language=manifest.lexical.language,
        words=manifest.lexical.words,
        search_weights=dict(sorted(manifest.lexical.weights.items())),
        search_languages=dict(sorted(manifest.lexical.languages.items())),
        synonym_rules=manifest.lexical.synonym_rules,
        dense_weight=manifest.fusion.dense_weight,
        weight_origin=manifest.fusion.origin,
        tuning_queries=manifest.quality.tuning_queries,
        tuning_ndcg_at_10=manifest.quality.tuning_ndcg_at_10,
        golden_queries=manifest.quality.queries,
        recall_at_10=manifest.quality.recall_at_10,
        bytes=sizes,
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
        choice=None if choice is None else choice.record(),
        device=device.name,
        device_notes=device.notes,
    )


def _histogram(tokens: NDArray[np.uint32]) -> Histogram:
    # Bins have equal integer widths; the last one collects outliers, which would dwarf the rest.
    top = int(np.percentile(tokens, 99.5))
    width = max(1, -(-(top + 1) // _BINS))
    edges = np.arange(0, _BINS + 1) * width
    counts, _ = np.histogram(np.minimum(tokens, edges[-1] - 1), edges)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())
