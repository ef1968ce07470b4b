"""Candidates of several shards are those of one, and hostile requests are refused or harmless."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from index_builder.behaviour.table_writer import write_tables
from nearline.errors import InvalidRequest, SnapshotCorrupt
from nearline.store.manifest_files import list_files
from nearline.store.publication import publish, temporary_snapshot
from nearline.store.snapshot import SCHEMA_VERSION, Store, shard_of
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.times import DAY_US
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.behaviour_shard import MAX_STORED_EVENTS, BehaviourShard
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.generator_names import (
    COUNTS,
    GOES_WITH,
    NEAREST,
    POPULAR,
    REBOUGHT,
    REPURCHASE,
    TAIL,
    TRENDING,
    USER,
)
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_keys import ItemKeys, keys_of
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.model import BehaviourModel, build_behaviour_model, shard_depth
from retrieval.behaviour.shard_tables import divide_tables, read_shard_tables
from retrieval.behaviour.tables import (
    POPULARITY,
    REPEAT_DAYS,
    REPEAT_RATE,
    SESSIONS,
    BehaviourTables,
    divided_shards,
    read_tables,
    read_users,
)
from retrieval.protocols.candidates import (
    NO_EVENTS,
    TRAINED,
    UNKNOWN,
    UNTRAINED,
    CandidatesRequest,
    HistoryRequest,
    KeyedHistory,
    ShardCandidates,
    merge_candidates,
)
from retrieval.shards.candidates_codec import candidates_from_proto, candidates_to_proto

ITEMS, USERS, DIM = 60, 20, 4
IDS = sorted(f"item {number}" for number in range(ITEMS))
PEOPLE = sorted(f"user {number}" for number in range(USERS))
NAMES = (USER, GOES_WITH, TAIL, NEAREST, POPULAR, COUNTS, TRENDING, REBOUGHT, REPURCHASE)
NOW_US = 100 * DAY_US


def lists(rng: np.random.Generator) -> ItemLists:
    """Returns up to ten items for each item, best first."""
    sizes = rng.integers(0, 10, ITEMS)
    others = [rng.choice(ITEMS, size, replace=False) for size in sizes]
    scores = [np.sort(rng.integers(1, 5, size))[::-1] for size in sizes]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    return ItemLists(
        starts, np.concatenate(others).astype(np.int32), np.concatenate(scores).astype("f4")
    )


def made(seed: int) -> BehaviourTables:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((ITEMS, DIM)).astype(np.float32)
    # Many items are equally popular.
    popularity = rng.integers(0, 4, ITEMS).astype(np.float32)
    events = rng.integers(1, 6, USERS)
    return BehaviourTables(
        IDS,
        popularity.astype(np.int64),
        {
            POPULARITY: popularity,
            REPEAT_RATE: rng.random(ITEMS, np.float32),
            REPEAT_DAYS: rng.integers(0, 30, ITEMS).astype(np.float32),
        },
        {SESSIONS: lists(rng)},
        ItemFactors(vectors, np.asarray(vectors.T @ vectors, np.float64), 1.0, 2.0),
        UserHistories(
            PEOPLE,
            np.concatenate(([0], np.cumsum(events))),
            rng.integers(0, ITEMS, events.sum()).astype(np.int32),
            np.full(events.sum(), NOW_US),
            np.ones(events.sum(), np.float32),
        ),
    )


def card() -> snapshot_pb2.BehaviourCard:
    parts = [
        snapshot_pb2.BlendPart(model="session", weight=1, table=SESSIONS, tau=3),
        snapshot_pb2.BlendPart(model="als", weight=0.5, table="factors"),
        snapshot_pb2.BlendPart(model="popular", weight=0.5, table=POPULARITY),
        snapshot_pb2.BlendPart(model="buy_again", weight=1, table=POPULARITY, popularity=0.5),
    ]
    blends = [snapshot_pb2.BlendCard(repeats=one, parts=parts) for one in (False, True)]
    return snapshot_pb2.BehaviourCard(blends=blends)


def divided(tables: BehaviourTables, shards: int) -> list[BehaviourShard]:
    return [BehaviourShard(card(), divide_tables(tables, one, shards)) for one in range(shards)]


def history(items: Sequence[int]) -> KeyedHistory:
    times = NOW_US - DAY_US * np.arange(len(items), dtype=np.int64) // 2
    weights = np.arange(1, len(items) + 1, dtype=np.float32)
    return KeyedHistory(keys_of(f"item {one}" for one in items), times, weights)


def found(
    shards: Sequence[BehaviourShard], request: CandidatesRequest, allowed: set[str] | None = None
) -> ShardCandidates:
    def mask(shard: BehaviourShard) -> NDArray[np.bool_] | None:
        return None if allowed is None else shard.mask_of(keys_of(allowed))

    return merge_candidates([one.find(request, mask(one)) for one in shards], request.most)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 5),
    shards=st.sampled_from([2, 3, 7]),
    items=st.lists(st.integers(0, ITEMS + 3), max_size=8),
    most=st.integers(1, 40),
    repeats=st.booleans(),
    hidden=st.sets(st.sampled_from(IDS), max_size=5),
    hide_history=st.booleans(),
    allowed=st.none() | st.sets(st.sampled_from(IDS)),
)
def test_several_shards_find_what_one_finds(
    seed: int,
    shards: int,
    items: list[int],
    most: int,
    repeats: bool,
    hidden: set[str],
    hide_history: bool,
    allowed: set[str] | None,
) -> None:
    tables = made(seed)
    one, several = divided(tables, 1), divided(tables, shards)
    request = CandidatesRequest(
        NAMES,
        history(items),
        most,
        repeats=repeats,
        hidden=keys_of(sorted(hidden)),
        hide_history=hide_history,
        now_us=NOW_US,
    )
    expected, merged = found(one, request, allowed), found(several, request, allowed)
    assert merged.events.tolist() == expected.events.tolist()
    for ours, theirs in zip(merged.scored, expected.scored, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
        # Factors may round differently, so that nearly equal items change places.
        if not np.isclose(np.diff(np.sort(theirs.scores)), 0, atol=1e-5).any():
            assert ours.rows.tolist() == theirs.rows.tolist()
        listed = list(merged.ids_of(ours.rows))
        assert listed == [IDS[number] for number in ours.rows]
        assert not hidden.intersection(listed)
        assert allowed is None or allowed.issuperset(listed)
        if hide_history:
            assert not {f"item {one}" for one in items}.intersection(listed)
    assert merged.total_count == expected.total_count == tables.popularity[POPULARITY].sum()


def test_lists_for_a_user_leave_new_items_to_factors_alone() -> None:
    tables = made(1)
    shards = divided(tables, 2)
    new = {IDS[at] for at in np.flatnonzero(tables.interactions == 0)}
    request = CandidatesRequest([USER, NEAREST], history([1, 2, 3]), ITEMS)
    of_user = found(shards, request)
    listed = [set(of_user.ids_of(one.rows)) for one in of_user.scored]
    assert new and not any(new & of_source for of_source in listed[:-1])
    assert new <= listed[-1]
    again = found(shards, request._replace(repeats=True))
    assert not (new - {"item 1", "item 2", "item 3"}) & set(again.ids_of(again.scored[0].rows))
    assert {"item 1", "item 2", "item 3"} <= set(again.ids_of(again.scored[3].rows))
    # Of named items, as in a search, each source scores what it can.
    named = found(shards, request._replace(generators=[USER], among=keys_of(sorted(new))))
    assert set(named.ids_of(named.numbers)) == new - {"item 1", "item 2", "item 3"}


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_each_user_has_a_history_in_one_shard_and_each_item_reasons(shards: int) -> None:
    tables = made(1)
    several = divided(tables, shards)
    for number, user in enumerate(PEOPLE):
        at = shard_of(user, shards)
        stored = [list(one.history(HistoryRequest(user)).ids) for one in several]
        part = slice(tables.histories.starts[number], tables.histories.starts[number + 1])
        assert stored[at] == [IDS[item] for item in tables.histories.items[part]]
        assert not any(ids for place, ids in enumerate(stored) if place != at)
    request = CandidatesRequest([USER], history([1, 2, 3]), 0, reasons_for=keys_of(IDS))
    whole, merged = found(divided(tables, 1), request), found(several, request)
    assert merged.reasons == whole.reasons
    assert all(whole.reasons)
    assert "new" in {reason for reasons in whole.reasons for reason in reasons}


def test_events_with_items_that_do_not_exist_count_for_nothing() -> None:
    (shard,) = divided(made(0), 1)
    with_unknown, without = history([70, 3, 71, 5]), history([3, 5])
    other = KeyedHistory(without.keys, with_unknown.time_us[1::2], with_unknown.weight[1::2])
    of_all = shard.find(CandidatesRequest([USER], with_unknown, 30))
    of_known = shard.find(CandidatesRequest([USER], other, 30))
    assert of_all.events[::2].tolist() == [UNKNOWN, UNKNOWN]
    assert set(of_all.events[1::2].tolist()) <= {TRAINED, UNTRAINED}
    for ours, theirs in zip(of_all.scored, of_known.scored, strict=True):
        assert np.array_equal(ours.rows, theirs.rows)
        assert np.array_equal(ours.scores, theirs.scores)
    nothing = shard.find(CandidatesRequest([USER], history([70, 71]), 30))
    assert not any(len(one.rows) for one in nothing.scored[:2])


def test_a_shard_that_finds_nothing_does_not_disturb_the_others() -> None:
    # Over the wire, an answer without items does not say how many features there are.
    several = divided(made(0), 2)
    request = CandidatesRequest([USER], history([1, 2, 3]), 30)
    full = several[0].find(request)
    full = full._replace(columns=np.ones((14, len(full.numbers)), np.float32))
    nothing = several[1].find(request, np.zeros(several[1].items, np.bool_))
    empty = candidates_from_proto(candidates_to_proto(nothing))
    for parts in ([full, empty], [empty, full]):
        merged = merge_candidates(parts)
        assert np.array_equal(merged.columns, full.columns)
        assert list(merged.ids) == list(full.ids)
    assert not len(merge_candidates([empty, empty]).numbers)


@pytest.mark.parametrize("name", NAMES)
def test_shards_of_one_server_find_what_those_of_several_do(name: str) -> None:
    request = CandidatesRequest([name], history([1, 2, 3]), 5, repeats=True, now_us=NOW_US)
    parts = [one.find(request) for one in divided(made(0), 3)]
    apart = merge_candidates(parts, request.most)
    # A server sends the candidates of its shards as one.
    together = merge_candidates([merge_candidates(parts)], request.most)
    for ours, theirs in zip(apart.scored, together.scored, strict=True):
        assert np.array_equal(ours.rows, theirs.rows)
        assert len(ours.rows) <= request.most


def test_an_unknown_generator_is_refused_by_name() -> None:
    (shard,) = divided(made(0), 1)
    explained = CandidatesRequest(["newest"], NO_EVENTS, 3, reasons_for=keys_of(IDS[:1]))
    with pytest.raises(InvalidRequest, match="'newest'; name one of counts"):
        shard.find(explained)
    with pytest.raises(InvalidRequest, match="'newest'; name one of counts, goes_with, nearest"):
        shard.find(CandidatesRequest(["newest"], NO_EVENTS, 3))


def test_a_shard_without_items_finds_nothing() -> None:
    tables = made(0)
    # Of 64 partitions, 60 items leave some empty.
    empty = [one for one in divided(tables, 64) if not one.items]
    assert empty
    for shard in empty:
        answer = shard.find(CandidatesRequest(NAMES, history([1, 2]), 10))
        assert not len(answer.numbers) and (answer.events != UNKNOWN).all()
        assert not len(shard.history(HistoryRequest("user 99")).ids)


def test_a_history_of_a_hundred_thousand_events_is_cut_to_the_newest() -> None:
    tables, count = made(0), 100_000
    items = np.arange(count, dtype=np.int32) % ITEMS
    times = NOW_US - np.arange(count, dtype=np.int64)
    robot = UserHistories(["robot"], np.array([0, count]), items, times, np.ones(count, np.float32))
    (shard,) = divided(tables._replace(histories=robot), 1)
    stored = shard.history(HistoryRequest("robot"))
    assert len(stored.ids) == MAX_STORED_EVENTS
    assert stored.ids[:3] == IDS[:3] and stored.time_us[-1] == times[MAX_STORED_EVENTS - 1]


def test_an_item_that_everybody_had_is_ranked_like_any_other() -> None:
    tables = made(2)
    popularity = tables.popularity[POPULARITY].copy()
    popularity[7] = 1e9
    tables = tables._replace(popularity={**tables.popularity, POPULARITY: popularity})
    model = build_behaviour_model(card(), tables)
    events = history([1, 2, 3])
    assert model.local is not None
    answer = model.local.find(CandidatesRequest([USER], events, 300))
    scored = model.score_user(answer, events, repeats=False)
    assert np.isfinite(scored.scores).all() and (scored.scores > 0).all()
    assert len(scored.rows) == len(set(scored.rows.tolist()))


def test_keys_find_numbers_and_unknown_keys_none() -> None:
    keys = ItemKeys.of(IDS)
    assert keys.find(keys_of(IDS)).tolist() == list(range(ITEMS))
    assert keys.find(keys_of(["", "item 99"])).tolist() == [-1, -1]
    assert ItemKeys.of([]).find(keys_of(["a"])).tolist() == [-1]
    # BLAKE2b of 8 bytes, little-endian: the same in every version.
    assert keys_of(["item 1"]).tolist() == [6144745251313264031]


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_a_shard_is_asked_for_enough_to_have_the_best_of_all(shards: int, seed: int) -> None:
    depth = shard_depth(300, shards)
    assert depth == 300 if shards == 1 else 300 / shards <= depth <= 300
    owners = np.random.default_rng(seed).integers(0, shards, 300)
    assert np.bincount(owners).max() <= depth


def test_a_model_without_tables_ranks_what_shards_found() -> None:
    tables = made(3)
    model: BehaviourModel = build_behaviour_model(card(), tables)
    events = history([4, 9, 11])
    for repeats in (False, True):
        request = CandidatesRequest([USER], events, 300, repeats=repeats)
        assert model.local is not None
        whole = model.score_user(model.local.find(request), events, repeats=repeats)
        merged = found(divided(tables, 4), request)
        parts = model.score_user(merged, events, repeats=repeats)
        assert parts.rows.tolist() == whole.rows.tolist()
        assert parts.scores == pytest.approx(whole.scores, abs=1e-4)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_tables_that_were_divided_are_read_whole_and_in_parts(tmp_path: Path, shards: int) -> None:
    tables, store = made(4), Store(tmp_path)
    snapshot_id = new_snapshot_id()
    with temporary_snapshot(store, "default", snapshot_id) as folder:
        write_tables(tables, folder, shards)
        manifest = snapshot_pb2.Manifest(
            schema_version=SCHEMA_VERSION,
            snapshot_id=snapshot_id,
            collection="default",
            behaviour=card(),
            files=list_files(folder),
        )
        publish(store, folder, manifest)
    assert divided_shards(manifest) == shards
    whole = read_tables(store, manifest)
    assert list(whole.ids) == IDS and list(whole.histories.users) == PEOPLE
    for name in ("starts", "items", "time_us", "weight"):
        ours, theirs = getattr(whole.histories, name), getattr(tables.histories, name)
        assert np.array_equal(ours, theirs), name
    for name, of_table in tables.lists.items():
        for item in range(ITEMS):
            others, scores = of_table.of(item)
            order = np.lexsort((others, -scores))
            found_others, found_scores = whole.lists[name].of(item)
            assert np.array_equal(found_scores, scores[order])
            if shards > 1:
                assert np.array_equal(found_others, others[order])
    assert read_users(store, manifest) == PEOPLE
    of_shards = [read_users(store, manifest, [one]) for one in range(shards)]
    assert sorted(user for users in of_shards for user in users) == PEOPLE
    request = CandidatesRequest(NAMES, history([1, 5, 9]), 40, now_us=NOW_US)
    read = [
        BehaviourShard(card(), read_shard_tables(store, manifest, one, shards))
        for one in range(shards)
    ]
    ours, theirs = found(read, request), found(divided(tables, shards), request)
    assert list(ours.ids_of(ours.numbers)) == list(theirs.ids_of(theirs.numbers))
    for one, other in zip(ours.scored, theirs.scored, strict=True):
        assert np.array_equal(one.rows, other.rows) and np.array_equal(one.scores, other.scores)
    with pytest.raises(SnapshotCorrupt, match=rf"have {shards} shards, its items {shards + 1}"):
        read_shard_tables(store, manifest, 0, shards + 1)


def test_tables_of_an_older_build_are_divided_by_each_shard(tmp_path: Path) -> None:
    tables, store = made(5), Store(tmp_path)
    snapshot_id = new_snapshot_id()
    with temporary_snapshot(store, "default", snapshot_id) as folder:
        write_tables(tables, folder)
        behaviour = folder / "behaviour"
        # Lists and histories were in the folder of the items, and there were no keys.
        for path in (behaviour / "000").iterdir():
            path.rename(behaviour / path.name)
        (behaviour / "000").rmdir()
        for name in ("numbers", "keys", "key_numbers"):
            (behaviour / f"{name}.npy").unlink()
        manifest = snapshot_pb2.Manifest(
            schema_version=SCHEMA_VERSION,
            snapshot_id=snapshot_id,
            collection="default",
            behaviour=card(),
            files=list_files(folder),
        )
        publish(store, folder, manifest)
    assert divided_shards(manifest) == 0
    assert read_users(store, manifest) == PEOPLE
    request = CandidatesRequest(NAMES, history([1, 5, 9]), 40, now_us=NOW_US)
    shards = [
        BehaviourShard(card(), read_shard_tables(store, manifest, one, 3)) for one in range(3)
    ]
    ours, theirs = found(shards, request), found(divided(tables, 3), request)
    assert list(ours.ids_of(ours.numbers)) == list(theirs.ids_of(theirs.numbers))
    user = PEOPLE[0]
    stored = shards[shard_of(user, 3)].history(HistoryRequest(user))
    assert len(stored.ids) == np.diff(tables.histories.starts)[0]
