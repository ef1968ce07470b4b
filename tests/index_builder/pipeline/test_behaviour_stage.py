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
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_snapshot
from index_builder.pipeline.compaction import compact, compaction_options
from nearline.contract import Item
from nearline.errors import InvalidRequest, NotReady
from nearline.store.snapshot import Store
from retrieval.behaviour.model import BehaviourModel, load_behaviour_model
from retrieval.protocols.snapshot import read_current_snapshots
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.index_builder.live_collection import Living

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


def read_model(store: Store | Path) -> BehaviourModel:
    store = store if isinstance(store, Store) else Store.open(str(store / "store"))
    (snapshot,) = read_current_snapshots(store, ["default"])
    found = load_behaviour_model(store, snapshot)
    assert found is not None
    return found


def history(model: BehaviourModel, user: str) -> list[str]:
    found = model.history_of(user)
    return [] if found is None else [model.ids[one] for one in found.items]


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
    store = Store.open(str(tmp_path / "store"))
    assert store.verify("default", result.snapshot_id) == result.bytes
    model = read_model(tmp_path)
    card = store.manifest("default", result.snapshot_id).behaviour
    assert model.factors_id == card.factors_id
    assert card.factors_id == hashlib.sha256(model.factors.vectors.tobytes()).hexdigest()
    assert list(model.ids) == documents()[1:]
    assert history(model, "u000") == [f"i{number:02}" for number in range(8, 0, -1)]


async def test_items_without_interactions_get_factors_from_their_content(tmp_path: Path) -> None:
    names = documents(18)
    await build(tmp_path, names, training=LEARNING)
    model = read_model(tmp_path)
    assert model.trained.tolist() == [True] * 12 + [False] * 6
    assert not model.popularity[12:].any()
    vectors = model.factors.vectors
    content = np.array([vector(name) for name in names])
    counts = np.append(np.bincount(walks().item)[::-1], [0] * 6)
    expected = predict_factors(content, vectors, counts)
    assert expected[12:].any(axis=1).all()
    assert vectors == pytest.approx(expected, abs=1e-6)
    # Sums over all that was learned: what was filled in is none of it.
    wide = vectors[:12].astype(np.float64)
    assert model.factors.gram == pytest.approx(wide.T @ wide, rel=1e-6)


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
    (snapshot,) = read_current_snapshots(Store.open(str(tmp_path / "store")), ["default"])
    assert load_behaviour_model(Store.open(str(tmp_path / "store")), snapshot) is None


async def test_interactions_with_unknown_items_fail_the_build(tmp_path: Path) -> None:
    other = replace(LEARNING, interactions=walks(prefix="x"))
    with pytest.raises(InvalidRequest, match="check the item column"):
        await build(tmp_path, documents(), training=other)
    assert Store.open(str(tmp_path / "store")).collections() == []


async def test_models_are_inherited_by_a_build_of_other_documents(tmp_path: Path) -> None:
    first = await build(tmp_path, documents(), training=LEARNING)
    before = read_model(tmp_path)
    record = (await build(tmp_path, ["a05", "i19"], mode=Mode.MERGE)).record()["behaviour"]
    assert isinstance(record, dict)
    assert record["inherited"] == first.snapshot_id
    assert first.behaviour is not None and record["blend"] == first.behaviour["blend"]
    after = read_model(tmp_path)
    assert list(after.ids) == ["a05", *documents(), "i19"]
    assert after.trained.tolist() == [False, *[True] * 12, False]
    assert np.array_equal(after.factors.vectors[1:13], before.factors.vectors)
    assert after.factors.vectors[0].any() and after.factors.vectors[13].any()
    assert after.factors_id != before.factors_id
    for user in before.users():
        assert history(after, user) == history(before, user)
        old, new = before.history_of(user), after.history_of(user)
        assert old is not None and new is not None
        for repeats in (False, True):
            expected = before.blend(repeats=repeats).scores(old)
            scores = after.blend(repeats=repeats).scores(new)
            # A new item may find its place among the best of a generator, and move the others.
            assert np.corrcoef(scores[1:13], expected)[0, 1] > 0.8


async def test_new_interactions_replace_the_training_data(tmp_path: Path) -> None:
    await build(tmp_path, documents(), training=LEARNING)
    fewer = replace(LEARNING, interactions=walks(users=25))
    result = await build(tmp_path, ["i12"], mode=Mode.MERGE, training=fewer)
    assert result.behaviour is not None
    assert (result.behaviour["users"], result.behaviour["inherited"]) == (25, "")
    assert len(list(read_model(tmp_path).users())) == 25


async def test_a_compaction_inherits_the_models(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    texts = {name: f"Text {name}." for name in documents()}
    await living.build(living.corpus(texts, 10), training=LEARNING)
    before = read_model(living.store)
    living.make_log()
    living.clock.now = 20
    await living.delete("i03")
    await living.upsert("i07", "Changed.")
    await living.upsert("new", "New.")
    result = await compact(compaction_options(living.options), living.log, living.embedder)
    assert result.behaviour is not None
    assert (result.behaviour["users"], result.behaviour["items"]) == (40, 11)
    after = read_model(living.store)
    assert list(after.ids) == [one for one in [*documents(), "new"] if one != "i03"]
    assert after.trained.tolist() == [True] * 11 + [False]
    kept = [list(before.ids).index(one) for one in after.ids[:11]]
    assert np.array_equal(after.factors.vectors[:11], before.factors.vectors[kept])
    for user in before.users():
        assert history(after, user) == [one for one in history(before, user) if one != "i03"]
    # Again: what was carried over once is carried over twice.
    await living.delete("i04")
    await compact(compaction_options(living.options), living.log, living.embedder)
    left = [f"i{number:02}" for number in (8, 7, 6, 5, 2, 1, 0)]
    assert history(read_model(living.store), "u000") == left


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
