"""A build trains on interactions; without them it inherits the models of the parent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour.content_factors import predict_factors
from index_builder.options.build_options import BuildOptions, Mode
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.behaviour_stage import factors_id
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_snapshot
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.contract import Item
from nearline.errors import InvalidRequest, NotReady
from nearline.store.snapshot import Store
from retrieval.behaviour.generator_names import POPULAR
from retrieval.behaviour.model import load_behaviour_model
from retrieval.behaviour.tables import read_users
from retrieval.protocols.snapshot import read_current_snapshots
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.index_builder.behaviour.trained_snapshots import (
    dense_scores,
    history_ids,
    read_trained,
    score_user,
)
from tests.index_builder.live_collection import Living
from tests.retrieval.behaviour.dense_scores import spread

LEARNING = TrainingOptions(
    interactions=walks(), kind_weights={"view": 1.0}, left_out={"no user": 2}
)


def vector(name: str) -> NDArray[np.float32]:
    """Places items on the circle that users walk, so that content predicts interactions."""
    angle = 2 * np.pi * int(name[1:]) / ITEMS
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def items(names: Sequence[str]) -> list[Item]:
    return [Item(id=name, vector=vector(name)) for name in names]


def options(tmp_path: Path, **changes: object) -> BuildOptions:
    plain = BuildOptions(store=str(tmp_path / "store"), golden_queries=0, shards=3)
    return replace(plain, **changes)  # type: ignore[arg-type]


def open_store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def trained_items(trained: TrainedSnapshot) -> list[bool]:
    return [trained.is_trained(one) for one in trained.tables.ids]


async def build(tmp_path: Path, names: Sequence[str], **changes: object) -> BuildResult:
    return await build_snapshot(items(names), options(tmp_path, **changes))


async def test_a_build_reports_its_training_and_a_router_reads_the_models(tmp_path: Path) -> None:
    result = await build(tmp_path, documents()[1:], training=LEARNING)
    record = result.record()["behaviour"]
    assert isinstance(record, dict)
    missing = int(np.count_nonzero(walks().item == ITEMS - 1))
    assert (record["interactions"], record["users"], record["items"]) == (360 - missing, 40, 11)
    assert record["left_out"] == {
        "no user": 2,
        "an item that is not in the corpus": missing,
    }
    assert record["blend"].keys() == record["validation_ndcg"].keys() == {"no_repeats", "repeats"}
    assert record["validation_ndcg"]["no_repeats"] > 0.5
    assert (record["inherited"], record["notes"]) == ("", [])
    assert "behaviour" in result.seconds
    store = open_store(tmp_path)
    assert store.verify("default", result.snapshot_id) == result.bytes
    card = store.manifest("default", result.snapshot_id).behaviour
    trained = read_trained(store)
    vectors = trained.tables.factors.vectors
    assert card.factors_id == hashlib.sha256(vectors.tobytes()).hexdigest()
    assert list(trained.tables.ids) == documents()[1:]
    assert history_ids(trained, "u000") == [f"i{number:02}" for number in range(8, 0, -1)]


async def test_items_without_interactions_get_factors_from_their_content(tmp_path: Path) -> None:
    names = documents(18)
    await build(tmp_path, names, training=LEARNING)
    trained = read_trained(open_store(tmp_path))
    assert trained_items(trained) == [True] * 12 + [False] * 6
    popular = dense_scores(trained, POPULAR)
    assert popular[:12].all() and not popular[12:].any()
    factors = trained.tables.factors
    vectors = factors.vectors
    content = np.array([vector(name) for name in names])
    counts = np.append(np.bincount(walks().item)[::-1], [0] * 6)
    expected = predict_factors(content, vectors, counts)
    assert expected[12:].any(axis=1).all()
    assert vectors == pytest.approx(expected, abs=1e-6)
    # Sums over all that was learned: what was filled in is none of it.
    wide = vectors[:12].astype(np.float64)
    assert factors.gram == pytest.approx(wide.T @ wide, rel=1e-6)


async def test_the_same_build_twice_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        await build(tmp_path / name, documents(14), training=LEARNING)
    hashes = []
    for name in ("one", "two"):
        store = Store.open(str(tmp_path / name / "store"))
        (snapshot,) = read_current_snapshots(store, ["default"])
        files = snapshot.manifest.files
        hashes.append({f.path: f.sha256 for f in files if f.path.startswith("behaviour/")})
    assert hashes[0] == hashes[1] and len(hashes[0]) > 10


async def test_a_build_without_interactions_has_no_behaviour(tmp_path: Path) -> None:
    result = await build(tmp_path, documents())
    assert result.record()["behaviour"] is None
    (snapshot,) = read_current_snapshots(open_store(tmp_path), ["default"])
    assert load_behaviour_model(open_store(tmp_path), snapshot) is None


async def test_interactions_with_unknown_items_fail_the_build(tmp_path: Path) -> None:
    other = replace(LEARNING, interactions=walks(prefix="x"))
    with pytest.raises(InvalidRequest, match="check the item column"):
        await build(tmp_path, documents(), training=other)
    assert Store.open(str(tmp_path / "store")).collections() == []


async def test_models_are_inherited_by_a_build_of_other_documents(tmp_path: Path) -> None:
    first = await build(tmp_path, documents(), training=LEARNING)
    before = read_trained(open_store(tmp_path))
    record = (await build(tmp_path, ["a05", "i19"], mode=Mode.MERGE)).record()["behaviour"]
    assert isinstance(record, dict)
    assert record["inherited"] == first.snapshot_id
    assert first.behaviour is not None and record["blend"] == first.behaviour["blend"]
    after = read_trained(open_store(tmp_path))
    assert list(after.tables.ids) == ["a05", *documents(), "i19"]
    assert trained_items(after) == [False, *[True] * 12, False]
    vectors = after.tables.factors.vectors
    assert np.array_equal(vectors[1:13], before.tables.factors.vectors)
    assert vectors[0].any() and vectors[13].any()
    assert factors_id(after.tables) != factors_id(before.tables)
    users = before.tables.histories.users
    assert len(users) == 40
    for user in users:
        assert history_ids(after, user) == history_ids(before, user) != []
        for repeats in (False, True):
            expected = spread(score_user(before, user, repeats=repeats), 12)
            scores = spread(score_user(after, user, repeats=repeats), 14)
            # A new item may find its place among the best of a generator, and move the others.
            assert np.corrcoef(scores[1:13], expected)[0, 1] > 0.8


async def test_new_interactions_replace_the_training_data(tmp_path: Path) -> None:
    await build(tmp_path, documents(), training=LEARNING)
    fewer = replace(LEARNING, interactions=walks(users=25))
    result = await build(tmp_path, ["i12"], mode=Mode.MERGE, training=fewer)
    assert result.behaviour is not None
    assert (result.behaviour["users"], result.behaviour["inherited"]) == (25, "")
    (snapshot,) = read_current_snapshots(open_store(tmp_path), ["default"])
    assert len(read_users(open_store(tmp_path), snapshot.manifest)) == 25


async def test_a_compaction_inherits_the_models(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    texts = {name: f"Text {name}." for name in documents()}
    await living.build(living.corpus(texts, 10), training=LEARNING)
    before = read_trained(living.store)
    living.make_log()
    living.clock.now = 20
    await living.delete("i03")
    await living.upsert("i07", "Changed.")
    await living.upsert("new", "New.")
    result = await compact(compaction_options(living.options), living.log, living.embedder)
    assert result.behaviour is not None
    assert (result.behaviour["users"], result.behaviour["items"]) == (40, 11)
    after = read_trained(living.store)
    ids = after.tables.ids
    assert list(ids) == [one for one in [*documents(), "new"] if one != "i03"]
    assert trained_items(after) == [True] * 11 + [False]
    kept = [list(before.tables.ids).index(one) for one in ids[:11]]
    factors = before.tables.factors.vectors[kept]
    assert np.array_equal(after.tables.factors.vectors[:11], factors)
    users = before.tables.histories.users
    assert len(users) == 40
    for user in users:
        had = history_ids(before, user)
        assert history_ids(after, user) == [one for one in had if one != "i03"] != []
    # Again: what was carried over once is carried over twice.
    await living.delete("i04")
    await compact(compaction_options(living.options), living.log, living.embedder)
    left = [f"i{number:02}" for number in (8, 7, 6, 5, 2, 1, 0)]
    assert history_ids(read_trained(living.store), "u000") == left


async def test_an_import_of_unrelated_documents_drops_the_models(
    tmp_path: Path,
) -> None:
    living = Living(tmp_path)
    await living.build(
        living.corpus({name: f"{name}." for name in documents()}, 10), training=LEARNING
    )
    living.make_log()
    result = await living.build(living.corpus({"x": "X."}, 20, "other"))
    assert result.behaviour is None
    assert not living.manifest.HasField("behaviour")
    assert not [one for one in living.manifest.files if one.path.startswith("behaviour/")]


async def test_a_resumed_build_trains_on_the_interactions_of_the_new_call(
    tmp_path: Path,
) -> None:
    living = Living(tmp_path)
    corpus = living.corpus({name: f"{name}." for name in documents()}, 10)

    def killed(*args: object) -> None:
        raise NotReady("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index_builder.pipeline.behaviour_stage.write_tables", killed)
        with pytest.raises(NotReady):
            await living.build(corpus, training=LEARNING)
    assert len(living.embedder.texts) == ITEMS
    changed = replace(LEARNING, interactions=walks(users=25))
    result = await living.build(corpus, training=changed)
    # Nothing was embedded again, and nothing was taken over of what the first run had learned.
    assert len(living.embedder.texts) == ITEMS
    assert result.behaviour is not None and result.behaviour["users"] == 25
