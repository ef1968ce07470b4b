"""A build trains a ranker if it helps, and later builds without interactions keep it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.lambdamart import LambdaMartOptions
from index_builder.interactions.records import Interactions
from index_builder.options.build_options import BuildOptions, Mode
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_snapshot
from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.contract import Item
from nearline.store.registry import Registry
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import blend_scores
from retrieval.protocols.snapshot import read_current_snapshots
from tests.index_builder.behaviour.repeat_buyers import rounds
from tests.index_builder.behaviour.trained_snapshots import (
    find_for_user,
    history_ids,
    read_trained,
    score_user,
)

ROWS = rounds()
IDS = list(ROWS.items)
_FEW = {"als plain", "popular plain", "popular days=15", "popular days=100", "buy_again plain"}
_FEW |= {"session tau=5", "buy_again tau=5 popularity=0.6", "item_to_item plain"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains only a few small candidates, to save time."""

    def some(rows: Interactions, **options: object) -> object:
        return [one for one in train_candidates(rows, repeats=True) if one.name in _FEW]

    for module in ("training", "ranker_selection"):
        monkeypatch.setattr(f"index_builder.behaviour.{module}.train_candidates", some)
    monkeypatch.setattr(
        "index_builder.behaviour.ranker_selection.LambdaMartOptions",
        lambda: LambdaMartOptions(trees=10),
    )


async def build(
    folder: Path, ids: list[str], mode: Mode, learning: TrainingOptions | None = None
) -> BuildResult:
    options = BuildOptions(
        store=str(folder / "store"), golden_queries=0, mode=mode, training=learning
    )
    one: NDArray[np.float32] = np.ones(1, np.float32)
    return await build_snapshot([Item(id=name, vector=one) for name in ids], options)


def served(folder: Path) -> tuple[TrainedSnapshot, snapshot_pb2.BehaviourCard]:
    store = Store.open(str(folder / "store"))
    (snapshot,) = read_current_snapshots(store, ["default"])
    return read_trained(store), snapshot.manifest.behaviour


def first(trained: TrainedSnapshot, user: str) -> str:
    numbers, _ = score_user(trained, user, repeats=True).ranked()
    return trained.tables.ids[int(numbers[0])]


async def test_a_build_says_what_it_kept_and_serves_it(tmp_path: Path) -> None:
    learning = TrainingOptions(interactions=ROWS, validate_on="last-n:1", k=3)
    told = (await build(tmp_path, IDS, Mode.REPLACE, learning)).record()["behaviour"]
    assert isinstance(told, dict)
    # Only known items are relevant; without repeats nothing is left to test on.
    assert told["ranker"]["no_repeats"] == ""
    assert "trees: NDCG" in told["ranker"]["repeats"]
    trained, card = served(tmp_path)
    assert trained.tables.rankers.keys() == {True}
    blend = card.blends[1]
    assert blend.repeats and blend.ranker.kept and not card.blends[0].HasField("ranker")
    assert blend.ranker.trees == 20 and blend.ranker.gain_low > 0
    assert {part.table for part in blend.ranker.sources} >= {"factors", "popularity_15d"}
    weights = {f"{one.model} {one.settings}": one.weight for one in blend.parts}
    for source in blend.ranker.sources:
        assert source.weight == weights.pop(f"{source.model} {source.settings}", 0)
    assert weights == {}
    # The next item of the round is the one bought five days ago.
    users = [f"u{number:03}" for number in range(130)]
    right = [history_ids(trained, user)[4] == first(trained, user) for user in users]
    assert np.mean(right) > 0.95
    # Results do not depend on the time of the request.
    assert [first(trained, user) for user in users[:5]] == [first(trained, u) for u in users[:5]]
    inherited = (await build(tmp_path, ["a", "i39x"], Mode.MERGE)).record()["behaviour"]
    assert isinstance(inherited, dict) and inherited["ranker"] == told["ranker"]
    after, _ = served(tmp_path)
    assert len(after.tables.ids) == len(trained.tables.ids) + 2
    for user in users:
        assert first(after, user) == first(trained, user)


async def test_the_blend_serves_if_no_trees_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "index_builder.behaviour.training.unavailable_reason", lambda: "no libgomp here"
    )
    learning = TrainingOptions(interactions=ROWS, validate_on="last-n:1", k=3)
    told = (await build(tmp_path, IDS, Mode.REPLACE, learning)).record()["behaviour"]
    assert isinstance(told, dict)
    assert "no ranker was trained: no libgomp here" in told["notes"]
    assert told["ranker"] == {"no_repeats": "", "repeats": ""}
    trained, card = served(tmp_path)
    assert not trained.tables.rankers and not any(one.ranker.kept for one in card.blends)
    found = find_for_user(trained, "u000", repeats=True)
    blended = blend_scores(found.scored, [part.weight for part in card.blends[1].parts])
    scored = score_user(trained, "u000", repeats=True)
    assert np.array_equal(scored.rows, blended.rows)
    assert np.array_equal(scored.scores, blended.scores)


async def test_the_ranker_is_a_version_of_the_registry_and_later_builds_name_it(
    tmp_path: Path,
) -> None:
    learning = TrainingOptions(interactions=ROWS, validate_on="last-n:1", k=3)
    result = await build(tmp_path, IDS, Mode.REPLACE, learning)
    assert result.record()["models"] == ["ranker default-ranker_repeats@1"]
    store = Store.open(str(tmp_path / "store"))
    manifest = store.manifest("default", result.snapshot_id)
    (ref,) = manifest.models
    registry = Registry(store)
    card = registry.show(ref.kind, ref.name, ref.version)
    files = {entry.path: entry for entry in manifest.files}
    kept = files["behaviour/ranker_repeats.txt"]
    assert [(one.path, one.sha256) for one in card.files] == [("ranker_repeats.txt", kept.sha256)]
    assert ref.fingerprint == kept.sha256
    assert (registry.fetch(ref) / "ranker_repeats.txt").stat().st_size == kept.bytes
    ranker = manifest.behaviour.blends[1].ranker
    assert dict(card.metrics) == {
        "validation_ndcg@3": ranker.validation_ndcg,
        "blend_ndcg@3": ranker.blend_ndcg,
        "gain_low": ranker.gain_low,
        "gain_high": ranker.gain_high,
    }
    assert (card.snapshot_id, card.collection) == (result.snapshot_id, "default")
    # The manifest lists the training data, so anyone can verify the hash.
    trained_on = "".join(
        f"{files[path].sha256}  {path}\n"
        for path in sorted(files)
        if path.startswith("behaviour/")
        and Path(path).name.startswith(("histories.", "items.", "users."))
    )
    assert card.training_data_sha256 == hashlib.sha256(trained_on.encode()).hexdigest()
    inherited = await build(tmp_path, ["a"], Mode.MERGE)
    assert list(store.manifest("default", inherited.snapshot_id).models) == [ref]
    again = await build(tmp_path, IDS, Mode.REPLACE, learning)
    assert list(store.manifest("default", again.snapshot_id).models) == [ref]
