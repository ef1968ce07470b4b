"""Compares lists with those that they compete with, on held-out interactions of the newest week."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.debias_selection import discounted_lists, user_rankings
from index_builder.behaviour.evaluation_task import EvaluationTask, make_task, top_lists
from index_builder.behaviour.manifest_entries import POPULAR
from index_builder.behaviour.model_selection import sample_users
from index_builder.behaviour.popularity import popularity
from index_builder.evaluation.bootstrap import paired_interval
from index_builder.evaluation.recommendation_metrics import measure
from index_builder.evaluation.served_lists import served_list
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from nearline.times import DAY_US
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.model import build_behaviour_model
from retrieval.behaviour.popularity import ItemScores, PopularityGenerator
from retrieval.behaviour.popularity_discount import popularity_levels
from retrieval.behaviour.segments import segments_of
from retrieval.behaviour.tables import BehaviourTables
from retrieval.protocols.candidates import KeyedHistory

# With fewer users, a difference is a matter of chance.
MIN_USERS: Final = 20
_WEEK_US = 7 * DAY_US


class ServingModels(NamedTuple):
    """The models that serve until these replace them."""

    card: snapshot_pb2.BehaviourCard
    tables: BehaviourTables


def compare(
    window: Split,
    generator: Generator,
    debias: float,
    k: int,
    seed: int,
    *,
    only_known: bool,
    serving: ServingModels | None = None,
) -> list[snapshot_pb2.ComparisonCard]:
    """Compares lists without repeats with popular items and with the lists that serve.

    Popular are the items with the most interactions in the same week, as far as they are not held
    out. A comparison with the lists that serve takes only interactions that their models cannot
    know. One on fewer than 20 users is left out.

    Args:
        window: The validation window, which neither generator nor popularity has seen.
        generator: Ranks items, trained on the training part of the window.
        debias: Discount for popularity, 0..1.
        k: Length of a list.
        seed: Draws users, if there are many.
        only_known: See `make_task`.
        serving: The models that serve. Optional.
    """
    train = window.train
    newest_us = max(int(train.time_us.max()), int(window.test.time_us.max()))
    since_us = newest_us - _WEEK_US
    levels = popularity_levels(popularity(train))

    def add(against: str, theirs: NDArray[np.int32], task: EvaluationTask) -> None:
        ours = discounted_lists(user_rankings(generator, task), levels, debias, k)
        values, others = (measure(one, task.relevant, k).ndcg for one in (ours, theirs))
        gain = paired_interval(values, others)
        found.append(
            snapshot_pb2.ComparisonCard(
                against=against,
                users=len(values),
                ndcg=float(values.mean()),
                against_ndcg=float(others.mean()),
                gain_low=gain.low,
                gain_high=gain.high,
            )
        )

    found: list[snapshot_pb2.ComparisonCard] = []
    if (task := _task(window, since_us, seed, only_known)) is not None:
        recent = PopularityGenerator(ItemScores(popularity(train.some(train.time_us > since_us))))
        add(POPULAR, top_lists(recent, task, k), task)
    if serving is not None:
        since_us = max(since_us, serving.card.newest_time.ToMicroseconds())
        if (task := _task(window, since_us, seed, only_known)) is not None:
            add(serving.card.factors_id, _served(serving, task, train, k), task)
    return found


def _task(window: Split, since_us: int, seed: int, only_known: bool) -> EvaluationTask | None:
    """Returns the task of held-out interactions after a moment; None if it has too few users."""
    test = window.test.some(window.test.time_us > since_us)
    if not len(test.user):
        return None
    task = make_task(window._replace(test=test), only_known=only_known)
    return None if len(task.users) < MIN_USERS else sample_users(task, seed)


def _served(
    serving: ServingModels, task: EvaluationTask, train: Interactions, k: int
) -> NDArray[np.int32]:
    """Returns the lists that models rank for the users of a task, by item number."""
    ids = train.items
    model = build_behaviour_model(serving.card, serving.tables)
    numbers = {one: number for number, one in enumerate(ids)}
    lists = np.full((len(task.users), k), -1, np.int32)
    for at, history in enumerate(task.histories):
        keys = keys_of(ids[one] for one in history.items.tolist())
        segments = segments_of([train.segments[one] for one in history.segments], model.segments)
        events = KeyedHistory(keys, history.time_us, history.weight, segments)
        listed = served_list(model, events, k, repeats=False)
        lists[at, : len(listed)] = [numbers.get(one, -1) for one in listed]
    return lists
