"""The kind of a CSV column is the narrowest that reads all of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import permutations
from typing import Any

import pytest

from index_builder.readers.cells import ColumnKind, read_list


def parsed(*cells: str) -> list[Any]:
    kind = ColumnKind()
    for cell in cells:
        kind.add(cell)
    parse = kind.parser()
    return [parse(cell) if cell else None for cell in cells]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", ""], [1, -2, None]),
        (["1", "2.5"], [1.0, 2.5]),
        (["true", "False"], [True, False]),
        (["2024-05-01", "2024-05-01 10:00"], [datetime(2024, 5, 1), datetime(2024, 5, 1, 10)]),
        (["007", "1"], ["007", "1"]),
        (["", ""], [None, None]),
        # No kind reads both, whichever comes first.
        (["1", "2024-05-01"], ["1", "2024-05-01"]),
        (["true", "2024-05-01"], ["true", "2024-05-01"]),
        (["1.5", "true"], ["1.5", "true"]),
        (["true", "1"], ["true", "1"]),
    ],
)
def test_a_column_has_one_kind_in_any_order(cells: Sequence[str], values: Sequence[Any]) -> None:
    for order in permutations(range(len(cells))):
        found = parsed(*(cells[at] for at in order))
        assert [(type(one), one) for one in found] == [
            (type(values[at]), values[at]) for at in order
        ]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["rock|pop", "jazz", ""], [["rock", "pop"], ["jazz"], None]),
        (["(none)", "Sci-Fi|Film Noir"], [["(none)"], ["Sci-Fi", "Film Noir"]]),
        (["1|2", "3"], [[1, 2], [3]]),
        (["1|2.5", "3"], [[1.0, 2.5], [3.0]]),
        (["1|x", "3"], [["1", "x"], ["3"]]),
        (["2024-05-01|2024-06-01"], [[datetime(2024, 5, 1), datetime(2024, 6, 1)]]),
        (['["rock", "pop"]', "[]"], [["rock", "pop"], []]),
        (["[1, 2]", "[3]"], [[1, 2], [3]]),
        # Brackets of JSON come first.
        (['["a|b"]', '["c"]'], [["a|b"], ["c"]]),
    ],
)
def test_lists_are_found_if_every_cell_is_one(cells: Sequence[str], values: Sequence[Any]) -> None:
    assert parsed(*cells) == values


@pytest.mark.parametrize(
    "cells",
    [
        ["How to boil an egg | Recipes", "Tea"],
        ["| a table |", "b"],
        ["a||b", "c"],
        ["a|b", "c|"],
        ["[live]", "b"],
        ['["a", ["b"]]', '["c"]'],
        ['["a"]', "b"],
        ["[" * 5_000],
        ["rock", "pop"],
    ],
)
def test_other_cells_stay_text(cells: Sequence[str]) -> None:
    assert parsed(*cells) == cells


@pytest.mark.parametrize(
    ("cell", "elements"),
    [
        ("rock | pop", ["rock", "pop"]),
        ("|rock||", ["rock"]),
        ("rock", ["rock"]),
        ('["rock", 1]', ["rock", 1]),
        ("[live]|rock", ["[live]", "rock"]),
        ("|", []),
    ],
)
def test_a_declared_list_is_read_however_it_is_written(cell: str, elements: list[Any]) -> None:
    assert read_list(cell) == elements
