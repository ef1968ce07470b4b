"""A build calibrates on its finished files and publishes the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.errors import InvalidRequest, NotReady
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from nearline_cli.compose.calibration import draft_store
from tests.index_builder.embedders import HashEmbedder

ITEMS = [Item(id=f"d{i}", title="", text=f"text number {i}") for i in range(6)]
CARD = snapshot_pb2.AnswerCard(
    questions=50, answerable=30, evidence_threshold=0.25, topic_auroc=1.0, target_risk=0.5
)


async def test_the_calibration_is_written_to_the_manifest(tmp_path: Path) -> None:
    seen: list[str] = []

    async def calibrate(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.AnswerCard:
        # All files are there and listed, and nothing is published yet.
        assert all((folder / entry.path).stat().st_size == entry.bytes for entry in manifest.files)
        assert Store(tmp_path).snapshot_ids("default") == []
        advance(50)
        seen.append(manifest.snapshot_id)
        return CARD

    options = BuildOptions(store=str(tmp_path), calibrate=calibrate)
    built = await build_snapshot(ITEMS, options, HashEmbedder())
    assert seen == [built.snapshot_id]
    assert Store(tmp_path).manifest("default", built.snapshot_id).answers == CARD
    answers = built.record()["answers"]
    assert isinstance(answers, dict)
    assert (answers["questions"], answers["answerable"], answers["target_risk"]) == (50, 30, 0.5)
    assert "calibrate" in built.seconds


async def test_without_labels_the_manifest_has_no_calibration(tmp_path: Path) -> None:
    built = await build_snapshot(ITEMS, BuildOptions(store=str(tmp_path)), HashEmbedder())
    assert not Store(tmp_path).manifest("default", built.snapshot_id).HasField("answers")
    assert built.record()["answers"] is None


async def test_a_failed_calibration_publishes_nothing(tmp_path: Path) -> None:
    async def away(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.AnswerCard:
        raise NotReady("the embedding service went away")

    options = BuildOptions(store=str(tmp_path), calibrate=away)
    with pytest.raises(NotReady):
        await build_snapshot(ITEMS, options, HashEmbedder())
    assert Store(tmp_path).snapshot_ids("default") == []
    vectors = [replace(item, vector=np.ones(4, np.float32)) for item in ITEMS]
    with pytest.raises(InvalidRequest, match="remove --calibrate-on"):
        await build_snapshot(vectors, options)


async def test_a_draft_is_a_store_of_the_same_files_under_another_manifest(tmp_path: Path) -> None:
    built = await build_snapshot(ITEMS, BuildOptions(store=str(tmp_path)), HashEmbedder())
    manifest = Store(tmp_path).manifest("default", built.snapshot_id)
    manifest.answers.CopyFrom(CARD)
    with draft_store(built.folder, manifest) as root:
        draft = Store(root)
        assert draft.alias_in_force("default").current == built.snapshot_id
        assert draft.manifest("default", built.snapshot_id).answers == CARD
        draft.verify("default", built.snapshot_id)
    assert not root.exists()
    assert not Store(tmp_path).manifest("default", built.snapshot_id).HasField("answers")
    Store(tmp_path).verify("default", built.snapshot_id)
