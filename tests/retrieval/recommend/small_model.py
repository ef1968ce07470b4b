"""A small behaviour model with numbers that a test can follow by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from nearline.v1 import snapshot_pb2
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.model import BehaviourModel, build_behaviour_model
from retrieval.behaviour.tables import POPULARITY, SESSIONS, BehaviourTables
from retrieval.recommend.ranking import RankingQuery
from retrieval.search.request_context import RequestContext

_SESSION = snapshot_pb2.BlendPart(model="session", weight=1, table=SESSIONS)
_AGAIN = snapshot_pb2.BlendPart(model="buy_again", weight=1, table=POPULARITY)
CARD = snapshot_pb2.BehaviourCard(
    factors_id="0" * 64,
    kind_weights={"purchase": 5.0},
    blends=[
        snapshot_pb2.BlendCard(repeats=False, parts=[_SESSION]),
        snapshot_pb2.BlendCard(repeats=True, parts=[_AGAIN, _SESSION]),
    ],
)
# What goes with an item, and how much.
Goes = Mapping[str, Mapping[str, float]]
Had = Mapping[str, Sequence[tuple[str, int]]]


def learned(
    ids: Sequence[str],
    goes: Goes,
    popularity: Mapping[str, float],
    had: Had | None = None,
    factors: Mapping[str, Sequence[float]] | None = None,
    of_items: Mapping[str, Mapping[str, float]] | None = None,
) -> BehaviourModel:
    """Makes it; see `small_tables`."""
    return build_behaviour_model(CARD, small_tables(ids, goes, popularity, had, factors, of_items))


def ranking_query(model: BehaviourModel, depth: int = 64, **options: Any) -> RankingQuery:
    """Asks for items of a collection that has only a model."""
    served = SimpleNamespace(
        name="default", learned=model, local_behaviour=model.local, shards=(), trends=None
    )
    context = RequestContext()
    return RankingQuery(
        served=cast(Any, served), model=model, context=context, depth=depth, **options
    )


def small_tables(
    ids: Sequence[str],
    goes: Goes,
    popularity: Mapping[str, float],
    had: Had | None = None,
    factors: Mapping[str, Sequence[float]] | None = None,
    of_items: Mapping[str, Mapping[str, float]] | None = None,
) -> BehaviourTables:
    """Makes the tables of a small model.

    Args:
        ids: Ascending.
        goes: For each item those that go with it; the blends read nothing else, and where what a
            user had may come again, also what they had before.
        popularity: Of each trained item; the others are new.
        had: By user, newest first: item, and when in microseconds.
        factors: Of each item, two numbers; none: no factors speak.
        of_items: By name of a table, of each item; others are 0.
    """
    numbers = {one: number for number, one in enumerate(ids)}
    starts, others, scores = [0], [], []
    for one in ids:
        row = sorted(goes.get(one, {}).items(), key=lambda pair: (-pair[1], pair[0]))
        others += [numbers[other] for other, _ in row]
        scores += [score for _, score in row]
        starts.append(len(others))
    users = sorted(had or {})
    rows = [(had or {})[user] for user in users]
    flat = [event for row in rows for event in row]
    vectors = np.array([(factors or {}).get(one, (0.0, 0.0)) for one in ids], np.float32)
    return BehaviourTables(
        list(ids),
        np.array([int(popularity.get(one, 0) > 0) for one in ids], np.int64),
        {
            name: np.array([table.get(one, 0.0) for one in ids], np.float32)
            for name, table in {POPULARITY: popularity, **(of_items or {})}.items()
        },
        {SESSIONS: ItemLists(np.array(starts), np.array(others, np.int32), np.array(scores, "f4"))},
        ItemFactors(vectors, np.asarray(vectors.T @ vectors, np.float64), 1.0, 2.0),
        UserHistories(
            users,
            np.cumsum([0, *map(len, rows)]),
            np.array([numbers[one] for one, _ in flat], np.int32),
            np.array([time_us for _, time_us in flat], np.int64),
            np.ones(len(flat), np.float32),
        ),
    )
