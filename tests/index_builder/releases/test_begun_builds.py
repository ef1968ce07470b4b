"""Snapshots that a killed upkeep left: the newest may be kept, to be continued."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index_builder.releases.begun_builds import note_begun, remove_begun
from nearline.store.snapshot import Store
from tests.retrieval.small_snapshots import Document, write_snapshot


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_the_newest_begun_snapshots_are_kept(tmp_path: Path, keep: int) -> None:
    store, document = Store(tmp_path), Document(id="a", vectors=np.eye(1, 4, dtype="f4"))
    current = write_snapshot(tmp_path, [document])
    begun = sorted(write_snapshot(tmp_path, [document], promote=False) for _ in range(3))
    for one in (*begun[1:], begun[0]):
        note_begun(store, "default", one)
    remove_begun(store, "default", keep)
    kept = begun[3 - keep :]
    assert sorted(store.files.names("default/begun")) == kept
    assert sorted(store.snapshot_ids("default")) == sorted([current, *kept])
