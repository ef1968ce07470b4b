"""Golden queries of a snapshot, with their exact results at build time."""

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
# A different CPU rounds differently, so a graph search may find slightly fewer results than at
# build time.
RECALL_SLACK = 0.05
_TIE_TOLERANCE = 1e-5


class GoldenQueries(NamedTuple):
    """Queries (n, d) float32, and ids and scores of the exact best chunks of each query."""

    vectors: NDArray[np.float32]
    ids: list[list[str]]
    scores: list[list[float]]

    @classmethod
    def read(cls, folder: Path, manifest: snapshot_pb2.Manifest) -> GoldenQueries | None:
        """Reads the golden queries of a snapshot from its folder; None if it has none.

        Raises: SnapshotCorrupt: The file cannot be read.
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

    def count_good(self, query: int, found: Iterable[tuple[str, float]]) -> int:
        """Counts the found chunks (document id, score) that are as good as the exact ones."""
        scores = self.scores[query]
        # A tie with the last exact chunk is as good; the golden results name only one of them.
        edge = scores[-1] - _TIE_TOLERANCE * max(1.0, abs(scores[-1]))
        exact = set(self.ids[query])
        return sum(score >= edge or document_id in exact for document_id, score in found)


def check_recall(recall: float, manifest: snapshot_pb2.Manifest, where: str, remedy: str) -> None:
    """Raises if the recall of golden queries falls short of the manifest.

    Args:
        recall: Recall of the golden queries, 0..1.
        manifest: Manifest of the snapshot.
        where, remedy: Searched index and remedy, for the error.
    Raises: SnapshotMismatch: The recall is too low.
    """
    promised = manifest.quality.recall_at_10
    if recall < promised - RECALL_SLACK:
        raise SnapshotMismatch(
            f"snapshot {manifest.snapshot_id} answers its golden queries with recall "
            f"{recall:.3f} {where}, but the manifest promises {promised:.3f}; {remedy}"
        )
