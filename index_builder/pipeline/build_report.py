"""The quality report of a build, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.vector_file import VectorFile
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.options.index_selection import IndexChoice
from nearline.v1 import snapshot_pb2

_BINS = 24


def report_to_json(
    manifest: snapshot_pb2.Manifest,
    vectors: VectorFile,
    bad_rows: BadRows,
    seconds: Mapping[str, float],
    folder: Path,
    choice: IndexChoice | None = None,
    device: BuildDevice = CPU_DEVICE,
) -> str:
    """Returns the report of a build as a JSON object.

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
    lexical, quality = manifest.lexical, manifest.quality
    report = {
        "snapshot_id": manifest.snapshot_id,
        "collection": manifest.collection,
        "sources": [
            {"uri": source.uri, "documents": source.documents, "bad_rows": source.bad_rows}
            for source in manifest.sources
        ],
        "documents": manifest.documents,
        "bad_rows": bad_rows.count,
        "bad_row_sample": [str(row) for row in bad_rows.sample],
        "chunks": manifest.chunks,
        "max_chunks_per_document": manifest.max_chunks_per_document,
        # Chunks that exceed the model's limit, so their ends were not embedded.
        "truncated": int(truncated.sum()),
        # Lengths of the chunks that were embedded for this snapshot.
        "tokens": _histogram(tokens[tokens > 0]) if tokens.any() else None,
        "model": manifest.embedder.model,
        "fingerprint": manifest.embedder.fingerprint,
        "dim": manifest.dim,
        "metric": manifest.metric,
        "index_factory": manifest.index_factory,
        "faiss_version": manifest.faiss_version,
        "ef_search": manifest.default_ef_search,
        "nprobe": manifest.default_nprobe,
        "documents_per_shard": [shard.documents for shard in manifest.shards],
        "language": lexical.language,
        "words": lexical.words,
        # Weights of titles and texts are 1 if they are missing.
        "search_weights": dict(sorted(lexical.weights.items())),
        "search_languages": dict(sorted(lexical.languages.items())),
        "synonym_rules": lexical.synonym_rules,
        # Weight of the dense leg in hybrid search, 0..1; its origin is "tuned" or "default".
        "dense_weight": manifest.fusion.dense_weight,
        "weight_origin": manifest.fusion.origin,
        "tuning_queries": quality.tuning_queries,
        "tuning_ndcg_at_10": quality.tuning_ndcg_at_10,
        "golden_queries": quality.queries,
        # Of the index, with its default widths, against an exact scan of the same vectors.
        "recall_at_10": quality.recall_at_10,
        "bytes": sizes,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "choice": None if choice is None else choice.record(),
        "device": device.name,
        # Work that the CPU did instead of the GPU, with the reasons.
        "device_notes": device.notes,
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _histogram(tokens: NDArray[np.uint32]) -> dict[str, list[int]]:
    """Returns counts of lengths in tokens: counts[i] are edges[i] <= tokens < edges[i + 1]."""
    # Bins have equal integer widths; the last one collects outliers, which would dwarf the rest.
    top = int(np.percentile(tokens, 99.5))
    width = max(1, -(-(top + 1) // _BINS))
    edges = np.arange(0, _BINS + 1) * width
    counts, _ = np.histogram(np.minimum(tokens, edges[-1] - 1), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
