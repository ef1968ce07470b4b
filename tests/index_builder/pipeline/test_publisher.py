"""Promotion of a build while somebody else changes the alias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_builder.pipeline.publisher import promote
from nearline.errors import Conflict
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.snapshots import aliases
from tests.retrieval.small_snapshots import Document, write_snapshot


class RacedStore(Store):
    """A store in which somebody else changes the alias after it was read for the first time."""

    def __init__(self, root: Path, change: Callable[[Store], object]) -> None:
        super().__init__(root)
        self._changes = [change]

    def alias_in_force(self, collection: str) -> snapshot_pb2.AliasRecord:
        record = super().alias_in_force(collection)
        if self._changes:
            self._changes.pop()(self)
        return record


@pytest.fixture(name="snapshots")
def give_snapshots(tmp_path: Path) -> list[str]:
    """Returns three snapshots, of which the first is current."""
    document = Document(
        id="a", vectors=np.ones((1, 2), np.float32), text="text", bounds=[(0, 4)], title=""
    )
    first = write_snapshot(tmp_path, [document])
    return [first, *(write_snapshot(tmp_path, [document], promote=False) for _ in range(2))]


def test_a_trial_that_begins_meanwhile_is_not_ended(tmp_path: Path, snapshots: list[str]) -> None:
    current, canary, built = snapshots

    store = RacedStore(tmp_path, lambda raced: aliases.split(raced, "default", canary, 0.1))
    with pytest.raises(Conflict, match=f"would end the trial of {canary} against {current}"):
        promote(store, store.manifest("default", built), "built")
    assert store.alias_in_force("default").canary == canary


def test_a_promotion_meanwhile_is_followed_by_that_of_the_build(
    tmp_path: Path, snapshots: list[str]
) -> None:
    current, other, built = snapshots

    store = RacedStore(tmp_path, lambda raced: aliases.promote(raced, "default", other))
    before = store.newest_alias_record("default")
    assert before is not None and before.current == current
    epoch = promote(store, store.manifest("default", built), "built")
    assert epoch == before.epoch + 2
    assert [one.current for one in store.alias_records("default")] == [built, other, current]
    with pytest.raises(Conflict, match="epoch"):
        promote(store, store.manifest("default", other), "built", expected_epoch=before.epoch)
