"""Training on interactions: choices, numbering and counts."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.behaviour.candidate_generators import train_candidates
from index_builder.behaviour.tables import build_histories
from index_builder.behaviour.training import MIN_TESTED, TrainedBehaviour, train_behaviour
from index_builder.interactions.records import Interactions
from index_builder.options.training_options import TrainingOptions
from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.errors import InvalidRequest
from nearline.times import DAY_US
from retrieval.behaviour.blend import DEPTH, Blend, WeightedGenerator, without_history
from retrieval.behaviour.generator_names import GOES_WITH, POPULAR
from retrieval.behaviour.history import MAX_HISTORY_EVENTS, History
from retrieval.index.sorted_ids import index_of
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.index_builder.behaviour.trained_snapshots import (
    dense_scores,
    find_for_user,
    history_ids,
    score_user,
)


def learned_from(rows: Interactions, ids: list[str], **options: object) -> TrainedBehaviour:
    learning = TrainingOptions(interactions=rows, **options)  # type: ignore[arg-type]
    return train_behaviour(learning, ids, 0, lambda steps: None)


def test_the_next_step_of_a_walk_comes_first() -> None:
    ids = documents(ITEMS + 3)
    found = learned_from(walks(), ids, kind_weights={"view": 1.0}, validate_on="last-n:1", k=3)
    card = found.card
    assert (card.interactions, card.users, card.items) == (360, 40, ITEMS)
    assert card.newest_time.ToMicroseconds() == 8 * DAY_US
    assert dict(card.kind_weights) == {"view": 1.0}
    assert (found.unknown, found.notes) == (0, [])
    assert [(one.repeats, one.split, one.k) for one in card.blends] == [
        *((False, "last-n:1", 3), (True, "last-n:1", 3)),
    ]
    trained = TrainedSnapshot.of(card, found.tables)
    assert card.blends[0].validation_ndcg > 0.9
    for number in (0, 7):
        user = f"u{number:03}"
        last = (number * 5 + 8) % ITEMS
        assert history_ids(trained, user)[:2] == [f"i{last:02}", f"i{last - 1:02}"]
        numbers, _ = score_user(trained, user, repeats=False).ranked()
        assert ids[int(numbers[0])] == f"i{(last + 1) % ITEMS:02}"


@pytest.mark.parametrize("fixed", [None, 0.0, 0.5])
def test_discounts_for_popularity_are_measured_on_validation(fixed: float | None) -> None:
    found = learned_from(walks(), documents(), validate_on="last-n:1", k=3, popularity_debias=fixed)
    learned = TrainedSnapshot.of(found.card, found.tables).model
    # All items of a walk are equally popular, so nothing is gained.
    assert learned.similar_debias == learned.debias(repeats=False) == (fixed or 0.0)
    card = found.card.blends[0].debias
    assert (card.users, card.fixed) == (40, fixed is not None)
    assert (
        card.ndcg == card.undiscounted_ndcg == pytest.approx(found.card.blends[0].validation_ndcg)
    )


def test_a_given_discount_is_kept_where_nothing_can_be_validated() -> None:
    rows = walks()
    few = rows.some(rows.user < 3)
    card = learned_from(few, documents(), popularity_debias=0.25).card
    for one in (card.similar_debias, *(blend.debias for blend in card.blends)):
        assert (one.value, one.fixed, one.users) == (0.25, True, 0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_discount_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(
        InvalidRequest, match=r"popularity_debias is .*; 0\.\.1 is allowed"
    ) as error:
        TrainingOptions(interactions=walks(), popularity_debias=value).check(0)
    assert error.value.field == "popularity_debias"


@pytest.mark.parametrize("newest", [1, 9])
def test_a_blend_of_a_card_scores_as_the_candidates_that_were_chosen(newest: int) -> None:
    rows = walks()
    found = learned_from(rows, documents())
    # Trained by hand on the same rows, numbered in the order of ids.
    users, items = sorted(rows.users), sorted(rows.items)
    ordered = rows._replace(
        users=users,
        items=items,
        user=(len(users) - 1 - rows.user).astype(np.int32),
        item=(len(items) - 1 - rows.item).astype(np.int32),
    )
    by_name = {one.name: one.generator for one in train_candidates(ordered, repeats=True)}
    trained = TrainedSnapshot.of(found.card, found.tables)
    stored = found.tables.histories.of("u003")
    assert stored is not None and len(stored.items) == 9
    history = History(stored.items[:newest], stored.time_us[:newest], stored.weight[:newest])
    everything = np.ones(ITEMS, np.bool_)
    for card in found.card.blends:
        generators = [by_name[f"{part.model} {part.settings}"] for part in card.parts]
        allowed = everything if card.repeats else without_history(everything, history)
        made = find_for_user(trained, "u003", repeats=card.repeats, newest=newest)
        expected = [one.best(history, allowed, DEPTH) for one in generators]
        for one, other in zip(made.scored, expected, strict=True):
            assert np.array_equal(one.rows, other.rows)
            assert np.array_equal(one.scores, other.scores)
        parts = map(WeightedGenerator, generators, (part.weight for part in card.parts))
        whole = Blend(list(parts), card.repeats).best(history, everything, ITEMS)
        blended = score_user(trained, "u003", repeats=card.repeats, newest=newest)
        assert np.array_equal(blended.rows, whole.rows)
        assert np.array_equal(blended.scores, whole.scores)


def test_training_is_deterministic() -> None:
    first, again = (learned_from(walks(), documents()) for _ in range(2))
    assert first.card == again.card
    assert np.array_equal(first.tables.factors.vectors, again.tables.factors.vectors)
    shuffled = walks()
    order = np.random.default_rng(3).permutation(len(shuffled.user))
    # No two rows of a user have equal times, so their order in the file does not matter.
    other = learned_from(shuffled.some(order), documents())
    assert np.array_equal(first.tables.factors.vectors, other.tables.factors.vectors)
    assert np.array_equal(first.tables.histories.items, other.tables.histories.items)


def test_interactions_with_unknown_items_are_left_out_and_counted() -> None:
    ids = documents(8)
    found = learned_from(walks(), ids)
    rows = walks()
    known = np.array([one in ids for one in rows.items])[rows.item]
    assert found.unknown == np.count_nonzero(~known)
    assert found.card.interactions == np.count_nonzero(known)
    assert found.tables.interactions.sum() == np.count_nonzero(known)
    with pytest.raises(InvalidRequest, match="'i11', 'i10', 'i09', document ids 'x', 'y'"):
        learned_from(walks(), ["x", "y"])


def test_items_without_interactions_are_numbered_and_not_trained() -> None:
    ids = ["a", *documents(), "z"]
    found = learned_from(walks(), ids)
    trained = TrainedSnapshot.of(found.card, found.tables)
    assert list(found.tables.ids) == ids
    assert index_of(found.tables.ids, "z") == 13 and index_of(found.tables.ids, "b") is None
    assert [trained.is_trained(one) for one in ids] == [False, *[True] * 12, False]
    had = np.bincount(11 - walks().item)
    assert dense_scores(trained, POPULAR).tolist() == [0, *had.tolist(), 0]
    for lists in found.tables.lists.values():
        assert len(lists.of(0)[0]) == len(lists.of(13)[0]) == 0
        assert not np.isin(lists.others, [0, 13]).any()
    similar = dense_scores(trained, GOES_WITH, [ids[3]])
    # Neighbours on the circle are related, and no item is related to itself.
    assert sorted(np.argsort(-similar)[:2].tolist()) == [2, 4]
    assert similar[3] == similar[0] == 0


@pytest.mark.parametrize("users", [1, 3, MIN_TESTED - 1])
def test_few_users_are_served_the_default_blend(users: int) -> None:
    found = learned_from(walks(users), documents())
    for card in found.card.blends:
        assert [part.model for part in card.parts] == ["item_to_item", "popular"]
        assert (card.split, card.validation_ndcg) == ("", 0)
    assert f"only {users} users can be tested" in found.notes[0]
    trained = TrainedSnapshot.of(found.card, found.tables)
    assert list(found.tables.histories.users) == [f"u{number:03}" for number in range(users)]
    assert score_user(trained, "u000", repeats=True).scores.max() > 0


def test_one_interaction_is_enough() -> None:
    rows = walks(1, 1)
    found = learned_from(rows, documents())
    assert "no blend was chosen" in found.notes[0]
    assert found.card.items == 1
    with pytest.raises(InvalidRequest, match="leaves no test"):
        learned_from(rows, documents(), validate_on="time:0.5")


def test_a_split_is_checked_before_anything_is_built() -> None:
    for split, wrong in (("last", "there is no split"), ("cold-items:0.2", "know nothing")):
        with pytest.raises(InvalidRequest, match=wrong):
            TrainingOptions(interactions=walks(), validate_on=split).check(0)
    TrainingOptions(interactions=walks(1, 1)).check(0)


def test_histories_are_newest_first_and_complete() -> None:
    count = MAX_HISTORY_EVENTS + 5
    rows = Interactions(
        ["a", "b"],
        [f"{number:03}" for number in range(count)],
        np.array([0] * count + [1, 1], np.int32),
        np.array([*range(count), 4, 2], np.int32),
        # The times of the second user are equal: the later row in the file is the newer.
        np.array([*range(count), 7, 7], np.int64),
        np.arange(1, count + 3, dtype=np.float32),
    )
    kept = build_histories(rows)
    first, second = kept.of("a"), kept.of("b")
    assert first is not None and second is not None and kept.of("aa") is None
    assert first.items.tolist() == list(range(count - 1, -1, -1))
    assert first.time_us.tolist() == first.items.tolist()
    assert first.weight.tolist() == (first.items + 1).tolist()
    assert second.items.tolist() == [2, 4]
