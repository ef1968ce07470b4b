"""The measurements of a run, and how long they take."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.scaling_parts.list_curve import COLD, HOT, ListLoad, list_curve, list_subject
from benchmarks.scaling_parts.measured_rows import LISTS, REDIS, SEARCHES, MeasuredRows, Row
from benchmarks.scaling_parts.search_curve import Turns, search_curve, search_subject
from benchmarks.workloads.list_catalogue import Catalogue
from benchmarks.workloads.user_states import measure_states
from benchmarks.workloads.vector_layouts import VectorLayout

# Interactions of a user in the training data.
_EVENTS = 20
# Rough costs on two cores: a vector of 384 dimensions per doubling of the graph, an item of lists,
# a user of lists, a user in Redis, a process, a search of the search for a width, and a list.
_VECTOR_S, _ITEM_S, _USER_S, _STATE_S = 40e-6, 200e-6, 20e-6, 300e-6
_PROCESS_S, _SEARCH_S, _LIST_S = 3.0, 1e-3, 10e-3
_WIDTHS_TRIED, _WARM_UP_S = 5, 2.0
# Lists of the warm-up.
_WARM_LISTS = 500


class CurveSizes(NamedTuple):
    """Sizes to measure.

    only: Kinds of rows. sizes: Numbers of vectors and of items. places: Where the shards are.
        recall: That decides the width of a graph. rate: Cold lists per second.
    """

    only: Sequence[str]
    sizes: Sequence[int]
    shards: Sequence[int]
    callers: Sequence[int]
    places: Sequence[str]
    users: Sequence[int]
    redis_users: Sequence[int]
    dim: int
    queries: int
    factory: str
    recall: float
    rate: float
    turns: Turns


class Measurement(NamedTuple):
    """A measurement: what it is, roughly how long it takes, and a call that yields its rows."""

    text: str
    seconds: float
    rows: Callable[[], AsyncIterator[Row]]


def missing_measurements(
    work: Path, sizes: CurveSizes, measured: MeasuredRows
) -> Iterator[Measurement]:
    """Yields what has no row yet, the small sizes first. work: Folder of the made-up data."""
    if SEARCHES in sizes.only:
        yield from _searches(work, sizes, measured)
    if LISTS in sizes.only:
        yield from _lists(work, sizes, measured)
    if REDIS in sizes.only:
        for users in sorted(sizes.redis_users):
            if not measured.has({"kind": REDIS, "users": users}):
                yield Measurement(
                    f"{users:,} users in Redis",
                    _PROCESS_S + users * _STATE_S,
                    lambda users=users: _states(users),  # type: ignore[misc]
                )


def _searches(work: Path, sizes: CurveSizes, measured: MeasuredRows) -> Iterator[Measurement]:
    for rows, shards in itertools.product(sorted(sizes.sizes), sizes.shards):
        layout = VectorLayout(rows, sizes.dim, sizes.factory, shards, sizes.queries)
        # Both places search the same index.
        build_s = rows * max(math.log2(rows / shards), 1) * _VECTOR_S * max(sizes.dim / 384, 0.2)
        for place in sizes.places:
            callers = [
                count
                for count in sizes.callers
                if not measured.has(search_subject(layout, place, count))
            ]
            if callers:
                turns_s = sizes.turns.rounds * sizes.turns.seconds + _WARM_UP_S
                yield Measurement(
                    f"{rows:,} vectors, {shards} shards, {place}",
                    build_s
                    + (shards + 1) * _PROCESS_S
                    + _WIDTHS_TRIED * sizes.queries * _SEARCH_S
                    + len(callers) * turns_s,
                    lambda layout=layout, place=place, callers=callers: search_curve(  # type: ignore[misc]
                        work, layout, place, callers, sizes.recall, sizes.turns
                    ),
                )
                build_s = 0.0


def _lists(work: Path, sizes: CurveSizes, measured: MeasuredRows) -> Iterator[Measurement]:
    for items, users, shards in itertools.product(
        sorted(sizes.sizes), sorted(sizes.users), sizes.shards
    ):
        catalogue = Catalogue(items, users, _EVENTS, shards, 0)
        # Both paths are measured together: a list is hot after it was cold.
        if all(measured.has(list_subject(catalogue, path)) for path in (COLD, HOT)):
            continue
        turns_s = 2 * sizes.turns.rounds * sizes.turns.seconds
        yield Measurement(
            f"{items:,} items, {users:,} users, {shards} shards",
            items * _ITEM_S
            + users * _USER_S
            + (shards + 2) * _PROCESS_S
            + _WARM_LISTS * _LIST_S
            + turns_s,
            lambda catalogue=catalogue: list_curve(  # type: ignore[misc]
                work, catalogue, ListLoad(sizes.rate, sizes.turns)
            ),
        )


async def _states(users: int) -> AsyncIterator[Row]:
    figures = await measure_states(users, 0)
    each = figures["redis_bytes_per_user"]
    yield {"kind": REDIS, **figures, "redis_bytes": round(each * users)}
