"""Retraining uses the data of the previous snapshot and newer interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_builder.interactions.merge import NO_INTERACTIONS
from index_builder.interactions.records import Interactions
from index_builder.options.build_options import Mode
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.pipeline.training_data import inherit_options
from nearline.errors import InvalidRequest
from nearline.times import DAY_US
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.tables import BehaviourTables, read_tables
from retrieval.protocols.snapshot import read_current_snapshots
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.index_builder.behaviour.trained_snapshots import history_ids, read_trained
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.test_behaviour_stage import build, open_store

FIRST = TrainingOptions(interactions=walks(), kind_weights={"view": 1.0})
ANEW = TrainingOptions(interactions=NO_INTERACTIONS, append=True)


def rows(*values: tuple[str, str, int, float]) -> Interactions:
    """Returns interactions from (user, item, day, weight)."""
    users = list(dict.fromkeys(one[0] for one in values))
    items = list(dict.fromkeys(one[1] for one in values))
    return Interactions(
        users,
        items,
        np.array([users.index(one[0]) for one in values], np.int32),
        np.array([items.index(one[1]) for one in values], np.int32),
        np.array([one[2] for one in values], np.int64) * DAY_US,
        np.array([one[3] for one in values], np.float32),
    )


def tables(tmp_path: Path) -> BehaviourTables:
    store = open_store(tmp_path)
    (snapshot,) = read_current_snapshots(store, ["default"])
    return read_tables(store, snapshot.manifest)


def sources(result: BuildResult) -> tuple[object, ...]:
    values = result.behaviour
    assert values is not None
    return values["file"], values["recorded"], values["kept"]


async def test_retraining_on_the_data_of_a_snapshot_gives_the_same_models(tmp_path: Path) -> None:
    await build(tmp_path, documents(), training=FIRST)
    before = tables(tmp_path)
    result = await build(tmp_path, documents(), mode=Mode.MERGE, training=ANEW)
    assert sources(result) == (0, 0, 360)
    assert result.behaviour is not None
    assert result.behaviour["inherited"] == "" and result.behaviour["left_out"] == {}
    after = tables(tmp_path)
    assert list(after.histories.users) == list(before.histories.users)
    for name in ("starts", "items", "time_us", "weight"):
        assert np.array_equal(getattr(before.histories, name), getattr(after.histories, name)), name
    assert np.array_equal(after.interactions, before.interactions)
    assert after.popularity.keys() == before.popularity.keys()
    for name, one in before.popularity.items():
        assert after.popularity[name] == pytest.approx(one, abs=1e-5), name
    assert after.lists.keys() == before.lists.keys()


@pytest.mark.parametrize("mode", Mode)
async def test_appended_interactions_override_earlier_ones(tmp_path: Path, mode: Mode) -> None:
    await build(tmp_path, documents(), training=FIRST)
    # User 0 was at i08 on day 8, the last of nine.
    new = rows(("u000", "i08", 8, 5.0), ("u000", "i11", 20, 1.0), ("new", "i11", 20, 1.0))
    added = replace(ANEW, interactions=new, recorded=1)
    result = await build(tmp_path, documents(), mode=mode, training=added)
    assert sources(result) == (2, 1, 359)
    assert result.behaviour is not None and result.behaviour["interactions"] == 362
    trained = read_trained(open_store(tmp_path))
    had = ["i11", *(f"i{number:02}" for number in range(8, -1, -1))]
    assert history_ids(trained, "u000") == had
    history = trained.tables.histories.of("u000")
    assert history is not None and history.weight.tolist() == [1.0, 5.0, *[1.0] * 8]
    assert history_ids(trained, "new") == ["i11"]
    # Again: nothing is counted twice, nothing is forgotten.
    result = await build(tmp_path, documents(), mode=mode, training=added)
    assert sources(result) == (2, 1, 359)
    result = await build(tmp_path, documents(), mode=mode, training=ANEW)
    assert sources(result) == (0, 0, 362)


async def test_interactions_that_are_not_appended_replace_earlier_ones(tmp_path: Path) -> None:
    await build(tmp_path, documents(), training=FIRST)
    other = TrainingOptions(interactions=walks(25))
    result = await build(tmp_path, documents(), mode=Mode.MERGE, training=other)
    assert sources(result) == (225, 0, 0)


async def test_a_deleted_user_is_removed_from_every_source(tmp_path: Path) -> None:
    await build(tmp_path, documents(), training=FIRST)

    async def erased(users: Sequence[str]) -> Mapping[str, int]:
        # All of user 0 and of "new", and the first three days of user 1.
        gone = {"u000": 99 * DAY_US, "u001": 2 * DAY_US, "new": 99 * DAY_US}
        return {one: gone[one] for one in users if one in gone}

    added = replace(ANEW, interactions=rows(("new", "i01", 9, 1.0), ("u002", "i01", 30, 1.0)))
    result = await build(
        tmp_path, documents(), mode=Mode.MERGE, training=added, deleted_users=erased
    )
    assert sources(result) == (2, 0, 360)
    assert result.behaviour is not None
    assert result.behaviour["left_out"] == {"a user who was deleted afterwards": 9 + 3 + 1}
    trained = read_trained(open_store(tmp_path))
    assert trained.had_by("u000") is None and trained.had_by("new") is None
    assert len(history_ids(trained, "u001")) == 6 and history_ids(trained, "u002")[0] == "i01"
    # They do not come back with the next one.
    result = await build(tmp_path, documents(), mode=Mode.MERGE, training=ANEW)
    assert sources(result) == (0, 0, 362 - 13)


async def test_old_interactions_are_left_out_and_counted(tmp_path: Path) -> None:
    await build(tmp_path, documents(), training=FIRST)
    added = replace(ANEW, interactions=rows(("new", "i01", 10, 1.0)), keep_days=4)
    result = await build(tmp_path, documents(), mode=Mode.MERGE, training=added)
    # Of days 0 to 8 those from day 6 on stay.
    assert result.behaviour is not None and result.behaviour["interactions"] == 3 * 40 + 1
    assert result.behaviour["left_out"] == {
        "interactions more than 4 days older than the newest": 6 * 40
    }


async def test_a_compaction_may_retrain_with_or_without_live_changes(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    await living.build(
        living.corpus({name: f"Text {name}." for name in documents()}, 10), training=FIRST
    )
    embedded = len(living.embedder.texts)

    async def again(learning: TrainingOptions, log: bool) -> BuildResult:
        options = replace(compaction_options(living.options), training=learning)
        return await compact(options, living.log if log else None, living.embedder)

    result = await again(ANEW, log=False)
    assert sources(result) == (0, 0, 360) and result.documents == ITEMS
    living.make_log()
    living.clock.now = 20
    await living.delete("i03")
    await living.upsert("new", "New.")
    result = await again(replace(ANEW, interactions=rows(("u000", "new", 9, 1.0))), log=True)
    gone = int(np.count_nonzero(np.array(walks().items)[walks().item] == "i03"))
    assert sources(result) == (1, 0, 360)
    assert result.behaviour is not None
    assert result.behaviour["left_out"] == {"an item that is not in the corpus": gone}
    assert history_ids(read_trained(living.store), "u000")[:2] == ["new", "i08"]
    # Nothing was embedded again: the new document came with its vector.
    assert len(living.embedder.texts) == embedded


async def test_training_without_interactions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequest, match="nothing to train on: there are no new or recorded interactions"
    ):
        await build(tmp_path, documents(), training=ANEW)
    with pytest.raises(InvalidRequest, match="no new or recorded interactions; name a file"):
        await build(tmp_path, documents(), training=replace(ANEW, append=False))
    await build(tmp_path, documents(), training=FIRST)

    async def everybody(users: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(users, 99 * DAY_US)

    with pytest.raises(
        InvalidRequest, match="of 360 interactions, none is left: 360 of a user who"
    ):
        await build(tmp_path, documents(), mode=Mode.MERGE, training=ANEW, deleted_users=everybody)


def test_missing_options_are_inherited() -> None:
    card = snapshot_pb2.BehaviourCard(
        kind_weights={"view": 0.5},
        blends=[
            snapshot_pb2.BlendCard(),
            snapshot_pb2.BlendCard(repeats=True, split="time:0.9"),
        ],
    )
    found = inherit_options(ANEW, card)
    assert (found.kind_weights, found.validate_on) == ({"view": 0.5}, "time:0.9")
    said = replace(ANEW, kind_weights={"buy": 2.0}, validate_on="loo")
    assert inherit_options(said, card) == said
    # The default stays unsaid, so that it may leave nothing to test on.
    card.blends[1].split = "last-n:5"
    assert inherit_options(ANEW, card).validate_on == ""


def test_training_options_are_checked_before_there_are_interactions() -> None:
    replace(ANEW, validate_on="time:0.9").check(0)
    for wrong in ("sometimes", "time:2", "cold-items:0.2"):
        with pytest.raises(InvalidRequest):
            replace(ANEW, validate_on=wrong).check(0)
    with pytest.raises(InvalidRequest, match=r"keep_days is 40000; 0\.\.36525"):
        replace(ANEW, keep_days=40_000).check(0)
