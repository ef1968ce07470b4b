"""Golden queries: a damaged file is named, ties are as good, and the promise has a slack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from nearline.v1 import snapshot_pb2
from retrieval.snapshots.golden_queries import FOLDER, RECALL_SLACK, GoldenQueries, check_recall


def _manifest(promised: float = 0.9, queries: int = 2) -> snapshot_pb2.Manifest:
    manifest = snapshot_pb2.Manifest(snapshot_id="s1", dim=2)
    manifest.quality.queries, manifest.quality.recall_at_10 = queries, promised
    return manifest


def _arrow(names: list[str], dim: int = 2) -> bytes:
    columns = {
        "vector": pa.array([[1.0] * dim, [0.5] * dim], pa.list_(pa.float32(), dim)),
        "ids": pa.array([["a", "b"], ["c", "d"]]),
        "scores": pa.array([[2.0, 1.0], [1.0, 0.5]]),
    }
    table = pa.table({name: columns[name] for name in names})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _write(root: Path, data: bytes) -> Path:
    (root / FOLDER).mkdir()
    (root / FOLDER / "queries.arrow").write_bytes(data)
    return root


def test_a_snapshot_without_golden_queries_has_none(tmp_path: Path) -> None:
    assert GoldenQueries.read(tmp_path, _manifest()) is None
    _write(tmp_path, b"not read")
    assert GoldenQueries.read(tmp_path, _manifest(queries=0)) is None


WHOLE = _arrow(["vector", "ids", "scores"])


@pytest.mark.parametrize(
    "data",
    [b"", b"no Arrow file", WHOLE[:-20], _arrow(["vector", "ids"]), _arrow(["ids"], 2)],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SnapshotCorrupt, match=r"queries\.arrow cannot be read"):
        GoldenQueries.read(_write(tmp_path, data), _manifest())


def test_an_error_of_the_disk_is_one_of_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pa, "memory_map", fail)
    with pytest.raises(SnapshotCorrupt, match="Input/output error"):
        GoldenQueries.read(_write(tmp_path, WHOLE), _manifest())


def test_chunks_that_tie_with_the_last_exact_one_count_as_good(tmp_path: Path) -> None:
    golden = GoldenQueries.read(_write(tmp_path, WHOLE), _manifest())
    assert golden is not None
    np.testing.assert_array_equal(golden.vectors, [[1, 1], [0.5, 0.5]])
    assert golden.count_good(0, [("a", 2.0), ("b", 0.0), ("other", 1.0), ("far", 0.9)]) == 3
    assert golden.count_good(1, [("a", 0.4), ("c", 0.0)]) == 1


@pytest.mark.parametrize(
    ("last", "found", "good"),
    [
        # Rounding: a hundred-thousandth of the score, or of 1 for smaller ones.
        (1.0, 1.0 - 0.9e-5, 1),
        (1.0, 1.0 - 1.1e-5, 0),
        (100.0, 100.0 - 0.9e-3, 1),
        (100.0, 100.0 - 1.1e-3, 0),
        (-100.0, -100.0 - 0.9e-3, 1),
        (-100.0, -100.0 - 1.1e-3, 0),
        (0.01, 0.01 - 0.9e-5, 1),
        (0.01, 0.01 - 1.1e-5, 0),
        (0.0, -0.9e-5, 1),
    ],
)
def test_a_tie_is_as_good_despite_rounding(last: float, found: float, good: int) -> None:
    golden = GoldenQueries(np.ones((1, 2), np.float32), [["a", "b"]], [[200.0, last]])
    assert golden.count_good(0, [("other", found)]) == good


def test_recall_may_fall_short_of_the_promise_by_a_slack() -> None:
    check_recall(0.9 - RECALL_SLACK, _manifest(), "here", "rebuild it")
    with pytest.raises(SnapshotMismatch, match=r"promises 0\.900; rebuild it"):
        check_recall(0.9 - RECALL_SLACK - 1e-3, _manifest(), "here", "rebuild it")
