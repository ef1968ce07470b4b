"""Tests of the arguments with which a build calls the gate."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from index_builder.releases import build_gate
from index_builder.releases.build_gate import gate_of_build
from index_builder.releases.gate import GateOptions
from nearline.contract import Embedder
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2


class Report:
    """A report with a verdict that repeats what it was asked with."""

    def verdict(self, path: str, force_because: str) -> release_pb2.GateVerdict:
        return release_pb2.GateVerdict(report=f"{path} {force_because}")


@pytest.mark.parametrize("embedder", [None, cast(Embedder, object())])
async def test_the_gate_embeds_with_the_embedder_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: Embedder | None
) -> None:
    asked: list[tuple[str, str | None, GateOptions]] = []

    async def judge(
        store: Store, collection: str, candidate: str, live: str | None, options: GateOptions
    ) -> Report:
        asked.append((candidate, live, options))
        return Report()

    monkeypatch.setattr(build_gate, "judge", judge)
    monkeypatch.setattr(build_gate, "keep_report", lambda store, report: "kept.json")
    check = gate_of_build("a reason", allow_model_change=True)
    manifest = snapshot_pb2.Manifest(collection="default", snapshot_id="s1")
    verdict = await check(Store(tmp_path), manifest, embedder)
    assert verdict.report == "kept.json a reason"
    ((candidate, live, options),) = asked
    assert (candidate, live, options.allow_model_change) == ("s1", None, True)
    assert list(options.embedders.values()) == ([] if embedder is None else [embedder])
