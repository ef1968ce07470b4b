"""Costs of a request and of a stored thing, as functions of size, shards and callers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.scaling_parts.least_squares import LinearFit, fit_least_squares
from benchmarks.scaling_parts.measured_rows import LISTS, REDIS, SEARCHES, Row


class Term(NamedTuple):
    """A term of a sum.

    text: Its notation. sizes: Names of the sizes that it depends on. value: Its value for sizes.
    """

    text: str
    sizes: tuple[str, ...]
    value: Callable[[Mapping[str, float]], float]


class CostFormula(NamedTuple):
    """A sum of terms that a figure is fitted by.

    name: What it is, for example "search: router us". figure: Name of the figure in a row. where:
        Values that the rows must have. terms: The terms.
    """

    name: str
    figure: str
    where: Mapping[str, str]
    terms: Sequence[Term]

    def select(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows that the formula is about."""
        return [row for row in rows if all(row.get(key) == one for key, one in self.where.items())]

    def values(self, size: Mapping[str, float]) -> list[float]:
        """Returns the values of the terms."""
        return [term.value(size) for term in self.terms]


class FittedFormula(NamedTuple):
    """A formula and its coefficients.

    dropped: Terms that the rows cannot tell from the others, because a size did not vary; the
        formula is without them. largest: Largest value of each size in the rows.
    """

    formula: CostFormula
    fit: LinearFit
    dropped: tuple[Term, ...]
    largest: Mapping[str, float]

    def predict(self, size: Mapping[str, float]) -> float:
        """Returns the figure of a size."""
        return self.fit.predict(self.formula.values(size))

    def times_beyond(self, size: Mapping[str, float]) -> float:
        """Returns how many times larger than measured a size is, at least 1."""
        names = {name for term in self.formula.terms for name in term.sizes}
        return max([1.0, *(size[name] / self.largest[name] for name in names)])

    def text(self) -> str:
        """Returns the sum, without terms that are 0."""
        terms = zip(self.fit.coefficients, self.formula.terms, strict=True)
        parts = [
            f"{number:.3g}" if term.text == "1" else f"{number:.3g} {term.text}"
            for number, term in terms
            if number
        ]
        return " + ".join(parts) or "0"


def _doublings(size: Mapping[str, float]) -> float:
    return math.log2(max(size["vectors"] / size["shards"], 2))


def _graph(size: Mapping[str, float]) -> float:
    """Each shard walks down a graph: its width by the logarithm of its vectors."""
    return size["shards"] * max(size["ef"], 1) * _doublings(size)


_ONE = Term("1", (), lambda size: 1)
_SHARDS = Term("shards", ("shards",), lambda size: size["shards"])
# Few callers leave the processes idle between requests, so that batches are smaller and each wakes
# up for one request.
_CALLERS = Term("shards / callers", ("shards",), lambda size: size["shards"] / size["callers"])
_DOUBLINGS = Term("log2(vectors / shards)", ("vectors",), _doublings)
_GRAPH = Term("shards x ef x log2(vectors / shards)", ("vectors", "shards"), _graph)
_CATALOGUE = Term("log2(items)", ("items",), lambda size: math.log2(size["items"]))
_VECTORS = Term("vectors", ("vectors",), lambda size: size["vectors"])
_ITEMS = Term("items", ("items",), lambda size: size["items"])
_USERS = Term("users", ("users",), lambda size: size["users"])

EF = "search: ef"
EMBEDDED_US = "search, embedded: us"
ROUTER_US, SHARDS_US = "search: router us", "search: shards us"
SHARDS_FILE_BYTES, SHARDS_BYTES = "search: file bytes", "search: shards resident bytes"
ROUTER_BYTES = "search: router resident bytes"
SNAPSHOT_BYTES, LIST_ROUTER_BYTES = "lists: file bytes", "lists: router resident bytes"
REDIS_BYTES = "redis: bytes of user states"


def list_us(path: str, process: str) -> str:
    """Returns the name of a figure. path: "cold" or "hot". process: "router", "shards", "redis"."""
    return f"lists, {path}: {process} us"


_APART = {"kind": SEARCHES, "layout": "separate"}
_COLD = {"kind": LISTS, "path": "cold"}
FORMULAS: Sequence[CostFormula] = (
    CostFormula(EF, "ef", {"kind": SEARCHES}, (_ONE, _DOUBLINGS)),
    CostFormula(
        EMBEDDED_US,
        "router_us",
        {"kind": SEARCHES, "layout": "embedded"},
        (_ONE, _SHARDS, _CALLERS, _GRAPH),
    ),
    CostFormula(ROUTER_US, "router_us", _APART, (_ONE, _SHARDS, _CALLERS)),
    CostFormula(SHARDS_US, "shards_us", _APART, (_SHARDS, _CALLERS, _GRAPH)),
    *(
        CostFormula(
            list_us(path, process),
            f"{process}_us",
            {"kind": LISTS, "path": path},
            (_ONE, _SHARDS, _CATALOGUE) if process != "redis" else (_ONE,),
        )
        for path in ("cold", "hot")
        for process in ("router", "shards", "redis")
    ),
    CostFormula(SHARDS_FILE_BYTES, "shards_file_bytes", {"kind": SEARCHES}, (_VECTORS,)),
    CostFormula(SHARDS_BYTES, "shards_rss_bytes", _APART, (_SHARDS, _VECTORS)),
    CostFormula(ROUTER_BYTES, "router_rss_bytes", _APART, (_ONE, _SHARDS, _VECTORS)),
    CostFormula(SNAPSHOT_BYTES, "snapshot_bytes", _COLD, (_ITEMS, _USERS)),
    CostFormula(LIST_ROUTER_BYTES, "router_rss_bytes", _COLD, (_ONE, _ITEMS, _USERS)),
    CostFormula(REDIS_BYTES, "redis_bytes", {"kind": REDIS}, (_USERS,)),
)


def fit_formulas(rows: Sequence[Row]) -> dict[str, FittedFormula]:
    """Returns the formulas that the rows suffice for, by name."""
    fitted = {}
    for formula in FORMULAS:
        sizes = [
            {key: one for key, one in row.items() if not isinstance(one, str)}
            for row in formula.select(rows)
        ]
        values = [size[formula.figure] for size in sizes]
        told = formula._replace(terms=_independent(formula.terms, sizes)) if sizes else formula
        if len(sizes) < len(told.terms) or min(values) <= 0:
            continue
        names = {name for term in formula.terms for name in term.sizes}
        fitted[formula.name] = FittedFormula(
            told,
            fit_least_squares([told.values(size) for size in sizes], values),
            tuple(term for term in formula.terms if term not in told.terms),
            {name: max(size[name] for size in sizes) for name in names},
        )
    return fitted


def _independent(terms: Sequence[Term], sizes: Sequence[Mapping[str, float]]) -> tuple[Term, ...]:
    """Returns the terms that are no sum of those before.

    A size that does not vary makes a multiple of the constant term: nothing tells how they share
    the figure, and a prediction for another size would be a guess.
    """
    chosen: list[Term] = []
    columns: list[list[float]] = []
    for term in terms:
        column = [term.value(size) for size in sizes]
        length = math.hypot(*column) or 1.0
        columns.append([value / length for value in column])
        if np.linalg.matrix_rank(np.array(columns), tol=1e-6) == len(columns):
            chosen.append(term)
        else:
            columns.pop()
    return tuple(chosen)
