"""Boosts: validation, and the scores that they make of the scores of candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.filters import kind_of
from nearline.times import in_utc
from nearline.wire.boosts import check_boost
from nearline.wire.limits import LIMITS, check_count, check_range
from retrieval.protocols.shard import ShardHits
from retrieval.search.merge import make_hit, merged_places

_NUMBERS = ("int", "double")
_RankedHits = list[tuple[int, c.Hit]]


def check_boosts(boosts: Sequence[c.Boost], kinds: Mapping[str, str]) -> None:
    """Checks boosts against the attributes of a collection.

    Args:
        boosts: Of a search.
        kinds: Kinds of the attributes, by name; of all that the boosts name.
    Raises: InvalidRequest: there are too many; an attribute has another kind; a number is out of
        range. Names the field and the remedy.
    """
    remedy = "leave out those with the smallest weights"
    check_count(len(boosts), "options.boosts", LIMITS["SearchOptions.boosts"], remedy)
    for at, boost in enumerate(boosts):
        where = f"options.boosts[{at}]"
        check_boost(boost, where)
        kind = kinds[boost.field]
        check_range(boost.weight, f"{where}.weight", LIMITS["Boost.weight"])
        if boost.growth is not None:
            _check_kind(boost, kind, _NUMBERS, f"{where}.growth")
            for name in ("pivot", "top"):
                value = getattr(boost.growth, name)
                if value is not None:
                    _check_positive(value, f"{where}.growth.{name}")
        elif boost.decay is not None:
            _check_decay(boost, boost.decay, kind, f"{where}.decay")
        else:
            _check_values(boost, kind, f"{where}.any_of")


def check_boosted(queries: int, options: c.SearchOptions) -> None:
    """Raises InvalidRequest if a search with boosts asks for too many hits, or queries."""
    if options.k > c.MAX_BOOSTED:
        raise InvalidRequest(
            f"k, with the pages before, is {options.k:,}; boosts change the order of the "
            f"{c.MAX_BOOSTED} best candidates, so that at most {c.MAX_BOOSTED} hits are allowed; "
            "lower k, or leave out boosts",
            field="options.k",
        )
    if queries * c.MAX_BOOSTED > c.MAX_HITS:
        raise InvalidRequest(
            f"{queries:,} queries have boosts, and each has {c.MAX_BOOSTED} candidates; at most "
            f"{c.MAX_HITS // c.MAX_BOOSTED} such queries are allowed; send fewer at once",
            field="options.boosts",
        )


def with_origins(
    boosts: Sequence[c.Boost], kinds: Mapping[str, str], now: datetime
) -> tuple[c.Boost, ...]:
    """Returns boosts whose decays have an origin, times in UTC: now, where none is set.

    Now is in whole seconds, so that searches of one second may share a batch.
    """
    second = now.astimezone(UTC).replace(microsecond=0)
    resolved = []
    for boost in boosts:
        if boost.decay is not None:
            origin = boost.decay.origin
            if isinstance(origin, datetime):
                origin = in_utc(origin)
            elif origin is None:
                origin = second if kinds.get(boost.field) == "time" else int(second.timestamp())
            boost = replace(boost, decay=replace(boost.decay, origin=origin))
        resolved.append(boost)
    return tuple(resolved)


def boosted_scores(
    base: NDArray[np.float64],
    titles: NDArray[np.float64],
    values: NDArray[np.float64],
    boosts: Sequence[c.Boost],
) -> NDArray[np.float32]:
    """Returns the scores of candidates.

    Args:
        base: (n,) scores without what titles add.
        titles: (n,) what titles add, >= 0.
        values: (n, m) values of the boosts, 0..1.
        boosts: m boosts.
    """
    # Boost by boost: a matrix product would round differently for other candidates.
    total = np.zeros(len(base))
    for boost, column in zip(boosts, values.T, strict=True):
        total += boost.weight * column
    factors = np.where(total >= 0, 1 + total, 1 / (1 + np.abs(total)))
    scores = np.where(base >= 0, base * factors, base / factors)
    # A name outranks the rest, whatever their boosts.
    largest = 1 + sum(max(0.0, boost.weight) for boost in boosts)
    return (scores + titles * largest).astype(np.float32)


def values_of(parts: Sequence[ShardHits], boosts: Sequence[c.Boost]) -> NDArray[np.float64]:
    """Returns the values of the boosts for the hits of shards, one after another: (n, m).

    A shard of an older release knows none: they are 0.
    """
    rows: list[Sequence[float]] = []
    for hits in parts:
        rows += hits.boosts or [[0.0] * len(boosts)] * len(hits.ids)
    return np.array(rows, np.float64).reshape(len(rows), len(boosts))


def boosted_hits(
    parts: Sequence[tuple[int, ShardHits]],
    k: int,
    candidates: int,
    boosts: Sequence[c.Boost],
    *,
    lexical: bool,
    explain: bool,
) -> _RankedHits:
    """Merges the hits of one query in one leg, and boosts them.

    Args:
        parts: Shard number and its hits, ordered as `ShardHits` says.
        k: Hits wanted.
        candidates: Best hits without boosts, over all shards, whose scores are changed.
        boosts: The boosts.
        lexical: Whether the leg is the lexical one.
        explain: Whether to explain each score.
    Returns: Shard number and hit, at most k, by (score descending, document id ascending, chunk
        ascending).
    """
    places = merged_places(parts, candidates)
    every = [hits for _, hits in parts]
    firsts = np.cumsum([0, *(len(hits.ids) for hits in every)])
    at = np.array([firsts[number] + place for number, place in places], np.int64)
    values = values_of(every, boosts)[at]
    scores = _column([hits.scores for hits in every], at)
    titles = _column([hits.title_scores or [0.0] * len(hits.ids) for hits in every], at)
    boosted = boosted_scores(scores - titles, titles, values, boosts).tolist()

    def order(rank: int) -> tuple[float, str, int]:
        number, place = places[rank]
        return -boosted[rank], every[number].ids[place], every[number].chunks[place]

    ranked: _RankedHits = []
    for rank in sorted(range(len(places)), key=order)[:k]:
        number, place = places[rank]
        shard, hits = parts[number]
        hit = make_hit(hits, place)
        if explain:
            hit.explanation = c.Explanation(
                dense_score=None if lexical else hit.score,
                lexical_score=hit.score if lexical else None,
                shard=shard,
                dense_rank=None if lexical else rank + 1,
                lexical_rank=rank + 1 if lexical else None,
                boosts=tuple(values[rank].tolist()),
            )
        hit.score = boosted[rank]
        ranked.append((shard, hit))
    return ranked


def _column(columns: Sequence[Sequence[float]], at: NDArray[np.int64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.concatenate([np.asarray(one, np.float64) for one in columns])
    return values[at]


def _check_decay(boost: c.Boost, decay: c.Decay, kind: str, where: str) -> None:
    _check_kind(boost, kind, (*_NUMBERS, "time"), where)
    _check_positive(decay.scale, f"{where}.scale")
    if not 0 <= decay.offset < math.inf:
        raise InvalidRequest(
            f"{where}.offset is {decay.offset}; a finite number >= 0 is needed",
            field=f"{where}.offset",
        )
    if not 0 < decay.decay < 1:
        raise InvalidRequest(
            f"{where}.decay is {decay.decay}; a number between 0 and 1 is needed, such as 0.5",
            field=f"{where}.decay",
        )
    if decay.origin is not None:
        _check_value(boost, kind, decay.origin, f"{where}.origin")


def _check_values(boost: c.Boost, kind: str, where: str) -> None:
    if len(boost.any_of) > c.MAX_BOOST_VALUES:
        raise InvalidRequest(
            f"{where} has {len(boost.any_of):,} values; at most {c.MAX_BOOST_VALUES} are allowed; "
            "use several boosts",
            field=where,
        )
    for value in boost.any_of:
        _check_value(boost, kind, value, where)


def _check_value(boost: c.Boost, kind: str, value: Any, where: str) -> None:
    found = "null" if value is None else kind_of(value)
    if found == "double" and not math.isfinite(value):
        raise InvalidRequest(f"{where} has {value}; use a finite number", field=where)
    if found != kind and not (found in _NUMBERS and kind in _NUMBERS):
        raise InvalidRequest(
            f"attribute {boost.field!r} is of kind {kind}, but {where} has a value of kind "
            f"{found}; use one of kind {kind}",
            field=where,
        )


def _check_kind(boost: c.Boost, kind: str, allowed: Sequence[str], where: str) -> None:
    if kind not in allowed:
        raise InvalidRequest(
            f"attribute {boost.field!r} is of kind {kind}, and {where} needs one of kind "
            f"{' or '.join(allowed)}; use any_of, or build with --attribute "
            f"{boost.field}:{allowed[-1]}",
            field=where,
        )


def _check_positive(value: float, where: str) -> None:
    if not 0 < value < math.inf:
        raise InvalidRequest(f"{where} is {value}; a number > 0 is needed", field=where)
