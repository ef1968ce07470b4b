"""Cores and memory for a scenario, by the fitted cost model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.scaling_parts.cost_model import (
    EF,
    LIST_ROUTER_BYTES,
    REDIS_BYTES,
    ROUTER_BYTES,
    ROUTER_US,
    SHARDS_BYTES,
    SHARDS_US,
    SNAPSHOT_BYTES,
    FittedFormula,
    list_us,
)

# docs/performance.md, "Lists": a user with 57 events.
REDIS_BYTES_PER_USER = 540
# docs/performance.md, "The document queue": embedding 7 ms, router 0.5, worker 0.3, Redis 0.3 and
# ingest service 0.2.
DOCUMENT_US = 8_300
_DAY_S = 86_400
SEARCHES, COLD_LISTS, HOT_LISTS = "searches", "cold lists", "hot lists"
_STATES = "Redis, states of users"


class Scenario(NamedTuple):
    """A load to plan for.

    requests, peak: Per second, on average and at most. shards: Into which products are divided.
    callers: Requests that a router has at a time. busy: Share of a core's time to plan with.
    """

    products: float = 10e6
    users: float = 50e6
    requests: float = 100_000
    peak: float = 500_000
    documents_per_day: float = 10e6
    shards: int = 16
    callers: int = 64
    busy: float = 0.7


class CapacityRow(NamedTuple):
    """A line of the plan.

    value: Of the average load. peak: The same at the peak; None where it does not depend on the
        load. error: Relative error of the fit, of rows left out; None if there is no fit. beyond:
        How many times the largest measured size the scenario has; None if there is no fit. source:
        Where the figure comes from.
    """

    figure: str
    value: float
    unit: str
    peak: float | None
    error: float | None
    beyond: float | None
    source: str


def plan_capacity(fitted: Mapping[str, FittedFormula], scenario: Scenario) -> Iterator[CapacityRow]:
    """Yields cores and bytes of one copy of everything, as far as the formulas reach."""
    size = {
        "vectors": scenario.products,
        "items": scenario.products,
        "users": scenario.users,
        "shards": scenario.shards,
        "callers": scenario.callers,
    }
    if EF in fitted:
        size["ef"] = fitted[EF].predict(size)
        yield _fitted_row("width of a search", "ef", [fitted[EF]], size)
    kinds = {
        SEARCHES: (ROUTER_US, SHARDS_US),
        COLD_LISTS: tuple(list_us("cold", one) for one in ("router", "shards", "redis")),
        HOT_LISTS: tuple(list_us("hot", one) for one in ("router", "shards", "redis")),
    }
    for kind, names in kinds.items():
        used = [fitted[name] for name in names if name in fitted]
        if not used or (kind == SEARCHES and "ef" not in size):
            continue
        each = _fitted_row(f"CPU of one of the {kind}", "us", used, size)
        yield each
        cores = each.value / 1e6 / scenario.busy
        yield each._replace(
            figure=f"all requests are {kind}",
            value=scenario.requests * cores,
            unit="cores",
            peak=scenario.peak * cores,
            source=f"{scenario.busy:.0%} busy",
        )
    document_cores = scenario.documents_per_day / _DAY_S * DOCUMENT_US / 1e6 / scenario.busy
    yield _documented_row("documents, embedded and indexed", "cores", document_cores)
    memory = {
        "shards of searches, one copy": SHARDS_BYTES,
        "shards of lists, one copy, all of it read": SNAPSHOT_BYTES,
        "a router for searches": ROUTER_BYTES,
        "a router for lists": LIST_ROUTER_BYTES,
        _STATES: REDIS_BYTES,
    }
    for figure, name in memory.items():
        if name in fitted:
            yield _fitted_row(figure, "bytes", [fitted[name]], size)
    if REDIS_BYTES not in fitted:
        yield _documented_row(_STATES, "bytes", scenario.users * REDIS_BYTES_PER_USER)


def _documented_row(figure: str, unit: str, value: float) -> CapacityRow:
    return CapacityRow(figure, value, unit, None, None, None, "docs/performance.md")


def _fitted_row(
    figure: str, unit: str, used: Sequence[FittedFormula], size: Mapping[str, float]
) -> CapacityRow:
    """Returns the sum of formulas; its relative error is at most that of its worst part."""
    known = [one.fit.left_out for one in used if one.fit.left_out is not None]
    dropped = sorted({name for one in used for term in one.dropped for name in term.sizes})
    return CapacityRow(
        figure,
        sum(one.predict(size) for one in used),
        unit,
        None,
        max(known) if len(known) == len(used) else None,
        max(one.times_beyond(size) for one in used),
        f"fit without {', '.join(dropped)}, which did not vary" if dropped else "fit",
    )
