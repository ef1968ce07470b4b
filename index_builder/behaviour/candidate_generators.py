"""The candidate generators from which a blend is chosen, trained on interactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.behaviour.ease import MOST_ITEMS, REGULARISATION, ease_lists
from index_builder.behaviour.item_to_item import item_to_item_lists
from index_builder.behaviour.popularity import popularity
from index_builder.behaviour.session_cooccurrence import SessionOptions, session_lists
from index_builder.behaviour.training_cost import CandidateSeconds
from index_builder.behaviour.user_item_matrix import newest_counted, newest_rows, users_by_items
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.interactions.records import Interactions
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator, OrderedFactors
from retrieval.behaviour.generator_spec import ALL_EVENTS
from retrieval.behaviour.history import Recency
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity import BuyAgainGenerator, ItemScores, PopularityGenerator
from retrieval.behaviour.sequences import SEQUENCE, SequenceGenerator, SequenceModel
from retrieval.behaviour.table_files import FACTORS
from retrieval.behaviour.tables import POPULARITY, SESSIONS

_RIDGE = 100.0
_DECAY_DAYS = 60.0
# A small share, so that popularity only breaks ties between items bought equally often.
_TIE = 1e-3


class CandidateGenerator(NamedTuple):
    """A generator with its settings.

    model: popular, item_to_item, als, ease, session, sequence or buy_again.
    settings: Distinguishes generators of one model; "plain" is the model without variations, as it
        was published.
    table: Name of the table that the generator reads, possibly with others; empty if no snapshot
        has its table.
    only_repeats: Whether it serves only lists that may repeat items of the user's history.
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


def train_candidates(
    train: Interactions,
    *,
    repeats: bool,
    seed: int = 0,
    device: BuildDevice = CPU_DEVICE,
    done: Callable[[float], None] = lambda seconds: None,
    sequences: SequenceModel | None = None,
) -> list[CandidateGenerator]:
    """Trains all generators; the first of each model has the settings "plain".

    The grid of settings is small, around those that were best on the two shared data sets (shared
    research, recommendation calibration). For each data set, validation chooses the generators that
    are served.

    Args:
        repeats: Whether items of a user's history may be recommended again.
        device: Trains the factors.
        done: Called with the seconds that finished parts were estimated to take.
        sequences: The model of order of these interactions. Optional.
    """
    seconds = CandidateSeconds.of(train)
    matrix = users_by_items(train)
    countable = newest_rows(train, newest_counted(train))
    counted = matrix if countable is train else users_by_items(countable)
    generators = [
        *_popular(train),
        *_item_to_item(counted),
        *_als(matrix, seed, device),
        *_sessions(train.by_time()),
    ]
    if sequences is not None:
        generators += _sequences(sequences)
    done(seconds.others)
    generators += _ease(counted)
    done(seconds.ease)
    if repeats:
        generators += _ridge(countable)
        generators += _buy_again(train)
        done(seconds.ease)
    return generators


def _popular(train: Interactions) -> Iterator[CandidateGenerator]:
    ever = PopularityGenerator(ItemScores(popularity(train)))
    yield CandidateGenerator("popular", "plain", ever, POPULARITY)
    for days in (15.0, 100.0):
        recent = PopularityGenerator(ItemScores(popularity(train, days)))
        yield CandidateGenerator("popular", f"days={days:g}", recent, f"{POPULARITY}_{days:g}d")


def _item_to_item(matrix: Any) -> Iterator[CandidateGenerator]:
    lists = item_to_item_lists(matrix)
    whole = ListGenerator(lists, newest=ALL_EVENTS)
    yield CandidateGenerator("item_to_item", "plain", whole, "item_to_item")
    recent = ListGenerator(lists, Recency(8.0))
    yield CandidateGenerator("item_to_item", "tau=8", recent, "item_to_item")


def _als(matrix: Any, seed: int, device: BuildDevice) -> Iterator[CandidateGenerator]:
    factors = train_factors(matrix, AlsOptions(), seed, threads=1, device=device)
    factors = factors._replace(own=OrderedFactors.of(factors.vectors))
    for settings, newest in (("plain", ALL_EVENTS), ("newest=5", 5), ("newest=20", 20)):
        yield CandidateGenerator("als", settings, FactorGenerator(factors, newest=newest), FACTORS)


def _sessions(train: Interactions) -> Iterator[CandidateGenerator]:
    symmetric = session_lists(train)
    directed = session_lists(train, SessionOptions(window=10, decay=5.0, directed=True))
    for tau in (5.0, 2.5, 10.0, 40.0):
        generator = ListGenerator(symmetric, Recency(tau))
        yield CandidateGenerator("session", f"tau={tau:g}", generator, SESSIONS)
    for tau in (3.0, 10.0):
        generator = ListGenerator(directed, Recency(tau))
        yield CandidateGenerator(
            "session", f"directed tau={tau:g}", generator, f"{SESSIONS}_directed"
        )


def _sequences(model: SequenceModel) -> Iterator[CandidateGenerator]:
    own = OrderedFactors.of(model.vectors)
    generator = SequenceGenerator(model._replace(own=own))
    yield CandidateGenerator(SEQUENCE, "plain", generator, SEQUENCE)


def _ease(matrix: Any) -> Iterator[CandidateGenerator]:
    lists = _ease_lists(matrix)
    yield CandidateGenerator("ease", "plain", ListGenerator(lists, newest=ALL_EVENTS), "ease")
    for tau, floor in ((8.0, 0.05), (20.0, 0.1), (100.0, 0.3)):
        settings = f"tau={tau:g} floor={floor:g}"
        yield CandidateGenerator(
            "ease", settings, ListGenerator(lists, Recency(tau, floor)), "ease"
        )


def _ease_lists(
    matrix: Any, regularisation: float = REGULARISATION, *, keep_diagonal: bool = False
) -> ItemLists:
    """Returns the lists of the items with the most users, as many as EASE can take."""
    if matrix.shape[1] <= MOST_ITEMS:
        return ease_lists(matrix, regularisation, keep_diagonal=keep_diagonal)
    users = matrix.getnnz(axis=0)
    items = np.sort(np.argsort(-users, kind="stable")[:MOST_ITEMS])
    lists = ease_lists(matrix[:, items], regularisation, keep_diagonal=keep_diagonal)
    counts = np.zeros(matrix.shape[1], np.int64)
    counts[items] = np.diff(lists.starts)
    starts = np.concatenate(([0], np.cumsum(counts)))
    return ItemLists(starts, items.astype(np.int32)[lists.others], lists.scores)


def _ridge(train: Interactions) -> Iterator[CandidateGenerator]:
    matrix = users_by_items(train, counts=True, decay_days=_DECAY_DAYS)
    lists = _ease_lists(matrix, _RIDGE, keep_diagonal=True)
    decayed = ListGenerator(lists, Recency(days=_DECAY_DAYS), ALL_EVENTS)
    settings = f"ridge days={_DECAY_DAYS:g}"
    yield CandidateGenerator("ease", settings, decayed, "ease_ridge", only_repeats=True)


def _buy_again(train: Interactions) -> Iterator[CandidateGenerator]:
    plain = BuyAgainGenerator(ItemScores(popularity(train)), popularity=_TIE)
    yield CandidateGenerator("buy_again", "plain", plain, POPULARITY, only_repeats=True)
    recent, table = ItemScores(popularity(train, 15.0)), f"{POPULARITY}_15d"
    for tau, share in ((np.inf, 0.3), (5.0, 0.6), (8.0, 0.6)):
        settings = f"tau={tau:g} popularity={share:g}"
        generator = BuyAgainGenerator(recent, Recency(tau), share)
        yield CandidateGenerator("buy_again", settings, generator, table, only_repeats=True)
