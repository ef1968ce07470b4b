"""Data set of `nearline bench swap`: snapshots that can be told apart by ids, texts and lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nearline import contract as c
from nearline.clients import EmbeddingClient

if TYPE_CHECKING:
    from index_builder.interactions.records import Interactions

COLLECTION = "swap"
STAMPS = ("alpha", "bravo", "charlie")
# Number of place names that the syllables can form.
MAX_DOCUMENTS = 4_096
USERS = 200

_EVENTS = 8
_DAY_S = 86_400
_SYLLABLES = (
    *("bal", "cor", "dun", "fen", "gar", "hol", "kel", "lor"),
    *("mar", "nor", "pel", "ros", "sul", "tam", "vel", "wes"),
)
_SENTENCES = (
    "The {stamp} harbour of {place} holds {figure} boats.",
    "The {stamp} market of {place} sells {figure} kinds of cheese.",
    "The {stamp} tower of {place} is {figure} metres tall.",
)
_QUESTIONS = (
    "How many boats does the harbour of {place} hold?",
    "How many kinds of cheese does the market of {place} sell?",
    "How tall is the tower of {place}?",
)


class SwapDataset(NamedTuple):
    """The snapshots.

    stamps: Stamps by snapshot id, in the order of `STAMPS`. texts: Texts by item id.
    """

    stamps: dict[str, str]
    texts: dict[str, str]


def item_id(stamp: str, row: int) -> str:
    """Returns the id of a document, which differs between snapshots."""
    return f"{stamp}-d{row:06d}"


def user_id(number: int) -> str:
    """Returns the id of a user; all snapshots have the same users."""
    return f"u{number:04d}"


def is_liked(stamp: str, row: int) -> bool:
    """Returns whether a document has interactions: a different third of them in each snapshot.

    A list therefore shows which snapshot it was learned from, whatever stamp its ids carry.
    """
    return row % len(STAMPS) == STAMPS.index(stamp)


def snapshot_items(stamp: str, documents: int, rng: np.random.Generator) -> list[c.Item]:
    """Returns the documents of a snapshot; every sentence carries its stamp."""
    found = []
    for row, place in enumerate(_places(documents)):
        figures = rng.integers(10, 1_000, len(_SENTENCES)).tolist()
        text = " ".join(
            sentence.format(stamp=stamp, place=place, figure=figure)
            for sentence, figure in zip(_SENTENCES, figures, strict=True)
        )
        found.append(c.Item(id=item_id(stamp, row), title=f"{place} ({stamp})", text=text))
    return found


def common_questions(documents: int, count: int, rng: np.random.Generator) -> list[str]:
    """Returns questions that a document of every snapshot answers."""
    places = _places(documents)
    asked = zip(
        rng.integers(0, documents, count).tolist(),
        rng.integers(0, len(_QUESTIONS), count).tolist(),
        strict=True,
    )
    return [_QUESTIONS[which].format(place=places[row]) for row, which in asked]


async def build_snapshots(
    store: Path, embedding: EmbeddingClient, documents: int, shards: int, seed: int
) -> SwapDataset:
    """Builds the snapshots, and promotes the first.

    Args:
        store: Folder of the store.
        embedding: Client of the embedding service.
        documents: Documents per snapshot, 100..4096.
        shards: Shards per snapshot.
        seed: Seed of figures in texts, and of interactions.
    """
    from index_builder.options.build_options import BuildOptions
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.builder import build_snapshot

    rng = np.random.default_rng(seed)
    built = SwapDataset({}, {})
    for stamp in STAMPS:
        items = snapshot_items(stamp, documents, rng)
        options = BuildOptions(
            store=str(store),
            collection=COLLECTION,
            shards=shards,
            training=TrainingOptions(interactions=_interactions(stamp, documents, rng)),
            promote=stamp == STAMPS[0],
        )
        built.stamps[(await build_snapshot(items, options, embedding)).snapshot_id] = stamp
        built.texts.update((item.id, item.text) for item in items)
    return built


def _places(documents: int) -> list[str]:
    # Consecutive names begin with different syllables.
    names = product(_SYLLABLES, repeat=3)
    return [f"{last}{middle}{first}".title() for first, middle, last in islice(names, documents)]


def _interactions(stamp: str, documents: int, rng: np.random.Generator) -> Interactions:
    """Returns the training interactions; they include every liked document."""
    from index_builder.interactions.records import Interactions

    liked = np.array([row for row in range(documents) if is_liked(stamp, row)])
    shares = 1 / np.arange(1, len(liked) + 1)
    drawn = rng.choice(liked, USERS * _EVENTS, p=shares / shares.sum())
    user = np.concatenate(
        [np.repeat(np.arange(USERS), _EVENTS), rng.integers(0, USERS, len(liked))]
    )
    time_s = int(time.time()) - rng.integers(0, 90 * _DAY_S, len(user))
    return Interactions(
        [user_id(number) for number in range(USERS)],
        _ids(stamp, documents),
        user.astype(np.int32),
        np.concatenate([drawn, liked]).astype(np.int32),
        time_s.astype(np.int64) * 1_000_000,
        np.ones(len(user), np.float32),
    )


def _ids(stamp: str, documents: int) -> Sequence[str]:
    return [item_id(stamp, row) for row in range(documents)]
