"""The generators that a blend is chosen from, trained on interactions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.behaviour.ease import MOST_ITEMS, ease_lists
from index_builder.behaviour.item_to_item import item_to_item_lists
from index_builder.behaviour.popularity import popularity
from index_builder.behaviour.session_cooccurrence import SessionOptions, session_lists
from index_builder.behaviour.user_item_matrix import users_by_items
from index_builder.interactions.records import Interactions
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.generator_spec import EVERYTHING
from retrieval.behaviour.history import Recency
from retrieval.behaviour.item_lists import ListGenerator
from retrieval.behaviour.popularity import BuyAgain, Popularity
from retrieval.behaviour.tables import FACTORS, POPULARITY, SESSIONS

_RIDGE = 100.0
_DECAY_DAYS = 60.0
# Popularity orders what was had equally often, and nothing else.
_TIE = 1e-3


class Candidate(NamedTuple):
    """A generator under its settings.

    model: popular, item_to_item, als, ease, session or buy_again.
    settings: What tells it from others of its model; "plain": as the model is published.
    table: Name of the table that it reads, shared with others; empty: no snapshot carries it.
    only_repeats: Made for lists where what a user had may come again, and for no others.
    """

    model: str
    settings: str
    generator: Generator
    table: str = ""
    only_repeats: bool = False

    @property
    def name(self) -> str:
        """Model and settings."""
        return f"{self.model} {self.settings}"


def train_candidates(train: Interactions, *, repeats: bool, seed: int = 0) -> list[Candidate]:
    """Trains all of them; the first of a model is the plain one.

    The settings are few, around those that were best on the two shared data sets (shared research,
    recommendation calibration); which of them serve is chosen on validation, per data set.

    Args:
        repeats: What a user had may be recommended again.
    """
    matrix = users_by_items(train)
    found = [*_popular(train), *_item_to_item(matrix), *_als(matrix, seed), *_sessions(train)]
    if len(train.items) <= MOST_ITEMS:
        found += _ease(matrix)
        if repeats:
            found += _ridge(train)
    if repeats:
        found += _buy_again(train)
    return found


def _popular(train: Interactions) -> Iterator[Candidate]:
    yield Candidate("popular", "plain", Popularity(popularity(train)), POPULARITY)
    for days in (15.0, 100.0):
        recent = Popularity(popularity(train, days))
        yield Candidate("popular", f"days={days:g}", recent, f"{POPULARITY}_{days:g}d")


def _item_to_item(matrix: Any) -> Iterator[Candidate]:
    lists = item_to_item_lists(matrix)
    whole = ListGenerator(lists, newest=EVERYTHING)
    yield Candidate("item_to_item", "plain", whole, "item_to_item")
    recent = ListGenerator(lists, Recency(8.0))
    yield Candidate("item_to_item", "tau=8", recent, "item_to_item")


def _als(matrix: Any, seed: int) -> Iterator[Candidate]:
    factors = train_factors(matrix, AlsOptions(), seed, threads=1)
    for settings, newest in (("plain", EVERYTHING), ("newest=5", 5), ("newest=20", 20)):
        yield Candidate("als", settings, FactorGenerator(factors, newest=newest), FACTORS)


def _sessions(train: Interactions) -> Iterator[Candidate]:
    around = session_lists(train)
    after = session_lists(train, SessionOptions(window=10, decay=5.0, directed=True))
    for tau in (5.0, 2.5, 10.0, 40.0):
        generator = ListGenerator(around, Recency(tau))
        yield Candidate("session", f"tau={tau:g}", generator, SESSIONS)
    for tau in (3.0, 10.0):
        generator = ListGenerator(after, Recency(tau))
        yield Candidate("session", f"directed tau={tau:g}", generator, f"{SESSIONS}_directed")


def _ease(matrix: Any) -> Iterator[Candidate]:
    lists = ease_lists(matrix)
    yield Candidate("ease", "plain", ListGenerator(lists, newest=EVERYTHING), "ease")
    for tau, floor in ((8.0, 0.05), (20.0, 0.1), (100.0, 0.3)):
        settings = f"tau={tau:g} floor={floor:g}"
        yield Candidate("ease", settings, ListGenerator(lists, Recency(tau, floor)), "ease")


def _ridge(train: Interactions) -> Iterator[Candidate]:
    matrix = users_by_items(train, counts=True, decay_days=_DECAY_DAYS)
    lists = ease_lists(matrix, _RIDGE, keep_diagonal=True)
    decayed = ListGenerator(lists, Recency(days=_DECAY_DAYS), EVERYTHING)
    settings = f"ridge days={_DECAY_DAYS:g}"
    yield Candidate("ease", settings, decayed, "ease_ridge", only_repeats=True)


def _buy_again(train: Interactions) -> Iterator[Candidate]:
    plain = BuyAgain(popularity(train), popularity=_TIE)
    yield Candidate("buy_again", "plain", plain, POPULARITY, only_repeats=True)
    recent, table = popularity(train, 15.0), f"{POPULARITY}_15d"
    for tau, share in ((np.inf, 0.3), (5.0, 0.6), (8.0, 0.6)):
        settings = f"tau={tau:g} popularity={share:g}"
        generator = BuyAgain(recent, Recency(tau), share)
        yield Candidate("buy_again", settings, generator, table, only_repeats=True)
