"""Golden queries of a snapshot: what was found exactly when it was built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from nearline.v1 import snapshot_pb2

FOLDER = "golden"
# Another CPU rounds differently, so a graph search may find a little less than at build time.
RECALL_SLACK = 0.05
_TIE_TOLERANCE = 1e-5


class GoldenQueries(NamedTuple):
    """Queries (n, d) float32, and per query the documents and scores of the exact best chunks."""

    vectors: NDArray[np.float32]
    ids: list[list[str]]
    scores: list[list[float]]

    @classmethod
    def of(cls, folder: Path, manifest: snapshot_pb2.Manifest) -> GoldenQueries | None:
        """Reads those of a snapshot from its folder; None: it has none.

        Raises: SnapshotCorrupt: not such a file.
        """
        path = folder / FOLDER / "queries.arrow"
        if manifest.quality.queries == 0 or not path.is_file():
            return None
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
                flat = table.column("vector").combine_chunks().flatten()
                return cls(
                    np.array(flat.to_numpy(), np.float32).reshape(-1, manifest.dim),
                    table.column("ids").to_pylist(),
                    table.column("scores").to_pylist(),
                )
        except (pa.ArrowInvalid, KeyError, OSError, ValueError) as error:
            raise SnapshotCorrupt(
                f"{path} cannot be read ({error}); rebuild the snapshot"
            ) from error

    def good(self, query: int, found: Iterable[tuple[str, float]]) -> int:
        """Counts the chunks found, document and score of each, that are as good as exact ones."""
        scores = self.scores[query]
        # A tie with the last exact answer is as good as that: golden answers name one of them.
        edge = scores[-1] - _TIE_TOLERANCE * max(1.0, abs(scores[-1]))
        exact = set(self.ids[query])
        return sum(score >= edge or document_id in exact for document_id, score in found)


def check_recall(recall: float, manifest: snapshot_pb2.Manifest, where: str, remedy: str) -> None:
    """Refuses what finds less than a snapshot promises.

    Args:
        recall: Of golden queries, 0..1.
        manifest: Of the snapshot.
        where, remedy: What was asked, and what to do, for the error.
    Raises: SnapshotMismatch.
    """
    promised = manifest.quality.recall_at_10
    if recall < promised - RECALL_SLACK:
        raise SnapshotMismatch(
            f"snapshot {manifest.snapshot_id} answers its golden queries with recall "
            f"{recall:.3f} {where}, the manifest says {promised:.3f}; {remedy}"
        )
