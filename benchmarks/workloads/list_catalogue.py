"""A catalogue for `nearline bench lists`: items, users, and models of behaviour, made up.

Training on a million items takes an hour, so the tables are drawn instead: lists of the usual
length, factors whose length follows popularity, and trees of the usual number over the usual
features. The figures say how long a list takes; how good it is, `nearline eval recommend` says.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nearline import contract as c
from nearline.v1 import snapshot_pb2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval.behaviour.item_lists import ItemLists
    from retrieval.behaviour.tables import BehaviourTables

DAY_S = 86_400
# Dimensions of vectors and factors, and items in each list.
_DIM, _FACTORS, _LISTED = 8, 64, 200
# Interactions of each user in the training data.
_EVENTS = 20
_TABLES = ("session", "session_directed", "item_to_item")


class Catalogue(NamedTuple):
    """Sizes of the catalogue."""

    items: int
    users: int
    shards: int


def item_id(number: int) -> str:
    """Returns the id of an item."""
    return f"item-{number:08d}"


def user_id(number: int) -> str:
    """Returns the id of a user."""
    return f"user-{number:09d}"


def draw_items(rng: np.random.Generator, items: int, size: int) -> NDArray[np.int64]:
    """Draws items by a Zipf law with exponent 1; the smaller the number, the more popular."""
    ends = np.cumsum(1 / np.arange(1, items + 1))
    drawn: NDArray[np.int64] = np.searchsorted(ends, rng.random(size) * ends[-1])
    return drawn


async def build_catalogue(store: Path, catalogue: Catalogue, now_s: int) -> None:
    """Builds the documents, adds the tables, and makes the result the current snapshot."""
    from index_builder.behaviour.table_writer import write_tables
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot
    from nearline.store.manifest_files import list_files
    from nearline.store.publication import publish, temporary_snapshot
    from nearline.store.snapshot import DIVIDED_VERSION, Store
    from nearline.store.snapshot_ids import new_snapshot_id
    from retrieval.snapshots import aliases

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((catalogue.items, _DIM)).astype(np.float32)
    documents = (
        c.Item(id=item_id(number), title=f"The title of item {number}", vector=vectors[number])
        for number in range(catalogue.items)
    )
    options = BuildOptions(
        store=str(store),
        shards=catalogue.shards,
        lexical=False,
        golden_queries=0,
        title_only=True,
        index=IndexOptions(factory="Flat"),
    )
    built = await build_snapshot(documents, options)
    opened = Store(store)
    manifest = opened.manifest(c.DEFAULT_COLLECTION, built.snapshot_id)
    source = opened.snapshot_folder(c.DEFAULT_COLLECTION, built.snapshot_id)
    manifest.snapshot_id = new_snapshot_id()
    with temporary_snapshot(opened, c.DEFAULT_COLLECTION, manifest.snapshot_id) as folder:
        shutil.copytree(source / "shards", folder / "shards")
        tables = made_up_tables(catalogue, now_s, rng)
        card = made_up_card(rng)
        write_tables(tables._replace(rankers={False: _trees(card, rng)}), folder, catalogue.shards)
        manifest.behaviour.CopyFrom(card)
        manifest.schema_version = DIVIDED_VERSION
        del manifest.files[:]
        manifest.files.extend(list_files(folder))
        publish(opened, folder, manifest)
    aliases.promote(
        opened, c.DEFAULT_COLLECTION, manifest.snapshot_id, expected_epoch=1, why="a benchmark"
    )


def made_up_tables(catalogue: Catalogue, now_s: int, rng: np.random.Generator) -> BehaviourTables:
    """Returns tables of the usual shape."""
    from retrieval.behaviour.factors import ItemFactors
    from retrieval.behaviour.features import FIRST_DAY
    from retrieval.behaviour.history import UserHistories
    from retrieval.behaviour.tables import BehaviourTables

    items, users, events = catalogue.items, catalogue.users, _EVENTS
    popularity = (items / np.arange(1, items + 1)).astype(np.float32)
    topics = rng.standard_normal((500, _FACTORS)).astype(np.float32)
    vectors = topics[rng.integers(0, len(topics), items)]
    vectors += rng.standard_normal((items, _FACTORS)).astype(np.float32)
    vectors *= (0.01 * popularity**0.5)[:, None]
    days = np.float32(now_s / DAY_S)
    return BehaviourTables(
        [item_id(number) for number in range(items)],
        np.maximum(popularity.astype(np.int64), 1),
        {
            "popularity": popularity,
            "popularity_15d": popularity * rng.random(items, np.float32),
            "popularity_100d": popularity * rng.random(items, np.float32),
            "trending": popularity * rng.random(items, np.float32),
            "repeat_rate": rng.random(items, np.float32),
            "repeat_days": 60 * rng.random(items, np.float32),
            FIRST_DAY: days - 900 * rng.random(items, np.float32),
        },
        {name: _lists(items, rng) for name in _TABLES},
        ItemFactors(vectors, np.asarray(vectors.T @ vectors, np.float64), 20.0, 2.0),
        UserHistories(
            [user_id(number) for number in range(users)],
            np.arange(0, users * events + 1, events, dtype=np.int64),
            draw_items(rng, items, users * events).astype(np.int32),
            # Newest first, an hour apart.
            np.tile((now_s - 3_600 * np.arange(1, events + 1)) * 1_000_000, users),
            np.ones(users * events, np.float32),
        ),
    )


def _lists(items: int, rng: np.random.Generator) -> ItemLists:
    from retrieval.behaviour.item_lists import ItemLists

    # The same distances for every item, so that all items of a list are different.
    distances = rng.choice(items - 1, min(_LISTED, items - 1), replace=False) + 1
    numbers = np.arange(items, dtype=np.int64)[:, None]
    others = ((numbers + distances) % items).astype(np.int32)
    scores = np.linspace(1, 0.1, len(distances), dtype=np.float32)
    jitter = rng.random((items, 1), np.float32)
    return ItemLists(
        np.arange(0, others.size + 1, len(distances), dtype=np.int64),
        others.ravel(),
        (scores * (0.5 + jitter)).ravel(),
    )


def made_up_card(rng: np.random.Generator) -> snapshot_pb2.BehaviourCard:
    """Returns a card with the blend and the ranker of a training on the shared film data."""
    from retrieval.behaviour.features import feature_names
    from retrieval.behaviour.generator_spec import source_name

    part = snapshot_pb2.BlendPart
    sources = [
        part(model="item_to_item", settings="tau=8", table="item_to_item", tau=8, newest=128),
        part(model="als", settings="plain", table="factors"),
        part(model="als", settings="newest=20", table="factors", newest=20, weight=0.5),
        part(model="session", settings="tau=5", table="session", tau=5, newest=128, weight=1),
        part(
            model="session",
            settings="directed tau=3",
            table="session_directed",
            tau=3,
            newest=128,
            weight=0.5,
        ),
        part(model="popular", settings="days=15", table="popularity_15d"),
    ]
    blended = [one for one in sources if one.weight]
    names = feature_names([source_name(one.model, one.settings) for one in sources], repeats=False)
    ranker = snapshot_pb2.RankerCard(
        kept=True, sources=sources, features=names, blend_weight=1, weight=1
    )
    return snapshot_pb2.BehaviourCard(
        factors_id="0" * 64,
        blends=[
            snapshot_pb2.BlendCard(repeats=False, parts=blended, ranker=ranker),
            snapshot_pb2.BlendCard(repeats=True, parts=blended),
        ],
    )


def _trees(card: snapshot_pb2.BehaviourCard, rng: np.random.Generator) -> str:
    """Returns as many trees as a build trains, over labels drawn at random."""
    from index_builder.behaviour.lambdamart import LambdaMartOptions, train_trees

    names = tuple(card.blends[0].ranker.features)
    lists, size = 100, 150
    values = rng.random((lists * size, len(names)), np.float32)
    labels = rng.random(lists * size) < values[:, 0] * 0.1
    return train_trees(values, labels, [size] * lists, names, LambdaMartOptions(), 0)
