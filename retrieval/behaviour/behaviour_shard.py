"""Finds candidates among the items of one shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearline.errors import InvalidRequest
from nearline.v1 import snapshot_pb2
from retrieval.behaviour import generator_names as names
from retrieval.behaviour.blend import Generator, without_history
from retrieval.behaviour.factors import FactorGenerator, best_of_each
from retrieval.behaviour.generator_spec import ALL_EVENTS, build_generator
from retrieval.behaviour.history import History, UserVectors
from retrieval.behaviour.item_lists import ListGenerator
from retrieval.behaviour.popularity import ItemScores, PopularityGenerator, RepurchaseGenerator
from retrieval.behaviour.ranker import feature_spec
from retrieval.behaviour.reasons import history_reasons
from retrieval.behaviour.shard_tables import ShardTables
from retrieval.behaviour.tables import (
    POPULARITY,
    REPEAT_DAYS,
    REPEAT_RATE,
    SESSIONS,
    TRENDING,
)
from retrieval.protocols.candidates import (
    NO_CANDIDATES,
    NO_HISTORY,
    TRAINED,
    UNKNOWN,
    UNTRAINED,
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
)
from retrieval.protocols.scored_rows import ScoredRows, union

# Events of one user that lists take into account: the newest. A user with more is a robot.
MAX_STORED_EVENTS = 10_000
# Items, the most popular of a shard, that may be the most popular in a segment.
_MOST_LIFTED = 5_000


@dataclass(frozen=True, slots=True)
class _UserSources:
    """The generators behind lists for a user; newest_us is None if no ranker reads features."""

    generators: Sequence[Generator]
    newest_us: int | None

    def best_of_each(
        self, history: History, allowed: NDArray[np.bool_], most: int
    ) -> list[ScoredRows]:
        """Returns the best items of each generator; those of factors read them together."""
        by_factors = [one for one in self.generators if isinstance(one, FactorGenerator)]
        nearest = iter(best_of_each(by_factors, history, allowed, most))
        return [
            next(nearest) if isinstance(one, FactorGenerator) else one.best(history, allowed, most)
            for one in self.generators
        ]


class BehaviourShard:
    """The behaviour of the items of one shard; immutable, and may be used by many threads.

    Args:
        card: What the snapshot learned.
        tables: The tables of the shard.
    """

    def __init__(self, card: snapshot_pb2.BehaviourCard, tables: ShardTables) -> None:
        self._tables = tables
        self._trained = tables.trained[tables.numbers]
        scores = tables.scores
        nothing = ItemScores(np.zeros(len(tables.numbers), np.float32))
        popular = scores[card.popularity_table or POPULARITY]
        # Older builds have no trends and no repeat statistics.
        rate = scores.get(REPEAT_RATE, nothing)
        self._trending = scores.get(TRENDING, scores[POPULARITY])
        self._total_count = float(scores[POPULARITY].values.sum(dtype=np.float64))
        self._repeat_days = scores.get(REPEAT_DAYS, nothing).values
        self._sources = {one.repeats: _user_sources(card, one, tables) for one in card.blends}
        rebought = ItemScores(popular.values * rate.values) if rate.some else popular
        self._generators: dict[str, Generator] = {
            names.POPULAR: PopularityGenerator(popular),
            names.COUNTS: PopularityGenerator(scores[POPULARITY]),
            names.TRENDING: PopularityGenerator(self._trending),
            names.REBOUGHT: PopularityGenerator(rebought),
            names.GOES_WITH: ListGenerator(tables.lists[SESSIONS]),
            # Routers of 0.2.0 ask for it; NEAREST finds the same.
            names.TAIL: ListGenerator(tables.lists[SESSIONS], newest=0),
            names.NEAREST: FactorGenerator(tables.factors, newest=ALL_EVENTS),
        }

    @property
    def items(self) -> int:
        """Number of items of the shard."""
        return len(self._tables.numbers)

    def mask_of(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Returns which items have one of some keys: (items,) bool."""
        mask = np.zeros(self.items, np.bool_)
        numbers = self._tables.keys.find(keys)
        rows = self._tables.rows_of(numbers[numbers >= 0])
        mask[rows[rows >= 0]] = True
        return mask

    def find(
        self,
        request: CandidatesRequest,
        allowed: NDArray[np.bool_] | None = None,
        memo: UserVectors | None = None,
    ) -> ShardCandidates:
        """Finds candidates; see `CandidatesRequest`. Takes some milliseconds.

        Args:
            allowed: (items,) bool, which items may be found. Optional; None: all.
            memo: Shared by the shards of one process that find candidates for this request.
        Raises: InvalidRequest: there is no generator of a name.
        """
        tables = self._tables
        history, events = self._history(request, memo)
        if request.reasons_for is not None:
            return self._explain(request, history, events)
        shown = np.ones(self.items, np.bool_) if allowed is None else allowed.copy()
        if len(request.among):
            shown &= self.mask_of(request.among)
        if len(request.hidden):
            shown &= ~self.mask_of(request.hidden)
        if request.hide_history:
            shown[history.own_rows()[1]] = False
        scored: list[ScoredRows] = []
        newest_us = None
        for name in request.generators:
            if name == names.USER:
                sources = self._sources[request.repeats]
                newest_us = sources.newest_us
                may = shown if request.repeats else without_history(shown, history)
                if not len(request.among):
                    # In lists, `names.NEAREST` places new items, since only factors know them; but
                    # not those that the user had.
                    known = self._trained.copy()
                    known[history.own_rows()[1]] = True
                    may = may & known
                scored += sources.best_of_each(history, may, request.most)
            elif name == names.POPULAR and history.segments:
                popular = self._generators[name].best(history, shown, request.most + _MOST_LIFTED)
                lift = tables.statistics.lift(popular.rows, history)
                lifted = ScoredRows(popular.rows, popular.scores * np.exp(lift))
                scored.append(lifted.best(request.most))
            else:
                generator = self._generator(name, request.now_us)
                scored.append(generator.best(history, shown, request.most))
        rows = union(scored)
        columns = np.empty((0, len(rows)), np.float32)
        if newest_us is not None and len(history.items):
            columns = tables.statistics.of(rows, history, newest_us, repeats=request.repeats)
        numbers = tables.numbers
        return ShardCandidates(
            events=events,
            scored=[ScoredRows(numbers[one.rows].astype(np.int64), one.scores) for one in scored],
            numbers=numbers[rows].astype(np.int64),
            ids=tables.ids.packed(numbers[rows]),
            levels=tables.levels[rows],
            columns=columns,
            total_count=self._total_count,
        )

    def history(self, request: HistoryRequest) -> StoredHistory:
        """Returns the newest interactions of a user of this shard."""
        found = self._tables.histories.of(request.user_id)
        if found is None:
            return NO_HISTORY
        newest = slice(0, MAX_STORED_EVENTS)
        items, tables = found.items[newest], self._tables
        again = frozenset(tables.ids.many(items[tables.again[items]]))
        ids = tables.ids.packed(items)
        return StoredHistory(ids, found.time_us[newest], found.weight[newest], again=again)

    def _history(
        self, request: CandidatesRequest, memo: UserVectors | None
    ) -> tuple[History, NDArray[np.uint8]]:
        """Returns the events with items of the snapshot, and what is known of each event."""
        tables = self._tables
        keys, time_us, weight, segments = request.history
        numbers = tables.keys.find(keys)
        events = np.full(len(numbers), UNKNOWN, np.uint8)
        known = numbers >= 0
        events[known] = np.where(tables.trained[numbers[known]], TRAINED, UNTRAINED)
        if request.trained_only:
            known = events == TRAINED
        numbers, rows = numbers[known], tables.rows_of(numbers[known])
        own = tuple(one for one in segments if one < tables.statistics.lifts.shape[1])
        return History(numbers, time_us[known], weight[known], rows, memo, own), events

    def _generator(self, name: str, now_us: int) -> Generator:
        if name == names.REPURCHASE:
            return RepurchaseGenerator(self._repeat_days, now_us)
        generator = self._generators.get(name)
        if generator is None:
            known = ", ".join(sorted((*self._generators, names.USER, names.REPURCHASE)))
            raise InvalidRequest(
                f"there is no candidate generator {name!r}; name one of {known}",
                field="generators",
            )
        return generator

    def _explain(
        self, request: CandidatesRequest, history: History, events: NDArray[np.uint8]
    ) -> ShardCandidates:
        assert request.reasons_for is not None, "explanations are asked for"
        numbers = self._tables.keys.find(request.reasons_for)
        known = np.flatnonzero(numbers >= 0)
        rows = np.full(len(numbers), -1, np.int64)
        rows[known] = self._tables.rows_of(numbers[known])
        reasons = [
            () if row < 0 else self._reasons(request, history, number, row)
            for number, row in zip(numbers.tolist(), rows.tolist(), strict=True)
        ]
        return NO_CANDIDATES._replace(events=events, reasons=reasons)

    def _reasons(
        self, request: CandidatesRequest, history: History, number: int, row: int
    ) -> Sequence[str]:
        name, trained = request.generators[0], bool(self._tables.trained[number])
        if name != names.USER:
            self._generator(name, request.now_us)
        popular = ("popular",) if trained else ("new",)
        if name == names.TRENDING:
            return ("trending",) if trained and self._trending.values[row] > 0 else popular
        if name == names.REPURCHASE:
            if number not in history.items:
                return popular
            due = RepurchaseGenerator(self._repeat_days, request.now_us).is_due(history, row)
            return ("again", "due") if due else ("again",)
        if name not in (names.USER, names.GOES_WITH):
            return popular
        generators = [self._generators[names.GOES_WITH]]
        if name == names.USER:
            generators = [*self._sources[request.repeats].generators]
        found = history_reasons(number, row, history, generators, trained=trained)
        because = [f"because:{one}" for one in self._tables.ids.many(np.array(found.because, int))]
        return (*(("again",) if found.again else ()), *because, *found.otherwise)


def _user_sources(
    card: snapshot_pb2.BehaviourCard, blend: snapshot_pb2.BlendCard, tables: ShardTables
) -> _UserSources:
    parts = blend.ranker.sources if blend.ranker.kept else blend.parts
    generators = [build_generator(part, tables) for part in parts]
    newest_us = feature_spec(card, blend).newest_us if blend.ranker.kept else None
    return _UserSources(generators, newest_us)
