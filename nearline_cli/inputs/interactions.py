"""Options of commands that read interactions, and the reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from index_builder.interactions.cleanup import CleaningRules
    from index_builder.interactions.reader import InteractionColumns
    from index_builder.interactions.records import Interactions

UserColumnOption = Annotated[
    str, typer.Option("--user-column", metavar="NAME", help="Column of the user.")
]
ItemColumnOption = Annotated[
    str, typer.Option("--item-column", metavar="NAME", help="Column of the item.")
]
TimeColumnOption = Annotated[
    str,
    typer.Option(
        "--time-column",
        metavar="NAME",
        help="Column of the time: ISO 8601, or seconds since 1970.",
    ),
]
KindColumnOption = Annotated[
    str,
    typer.Option(
        "--kind-column", metavar="NAME", help="Column of the kind. \\[default: all are of one]"
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="NAME=WEIGHT",
        help="How much a kind counts; may be repeated, others are left out. "
        "\\[default: all count 1]",
    ),
]
ValueColumnOption = Annotated[
    str,
    typer.Option(
        "--value-column",
        metavar="NAME",
        help="Column that weights multiply with. \\[default: none]",
    ),
]
MinPerUserOption = Annotated[
    int,
    typer.Option("--min-per-user", min=1, help="Interactions that a user must have to count."),
]
MinPerItemOption = Annotated[
    int,
    typer.Option("--min-per-item", min=1, help="Interactions that an item must have to count."),
]
MaxPerUserDayOption = Annotated[
    int,
    typer.Option(
        "--max-per-user-day",
        min=0,
        help="A user with more on any day is a bot, and left out whole. 0: nobody is.",
    ),
]
DuplicatesWithinOption = Annotated[
    float,
    typer.Option(
        "--duplicates-within",
        metavar="SECONDS",
        min=0.0,
        help="The same item again within this time of a user counts once. 0: each counts.",
    ),
]
USER, ITEM, TIME = "user", "item", "time"


class CleanedInteractions(NamedTuple):
    """Interactions, cleaned. left_out: How many were not taken, by reason; weights: by kind."""

    interactions: Interactions
    left_out: Mapping[str, int]
    weights: Mapping[str, float]


def load_interactions(
    path: Path,
    columns: InteractionColumns,
    kinds: list[str] | None,
    rules: CleaningRules,
    before: Mapping[str, float] | None = None,
) -> CleanedInteractions:
    """Reads and cleans a file.

    Args:
        kinds: As `--kind` takes them.
        before: Weights of kinds that hold where there is a column of kinds and none is named.
    Raises: InvalidRequest: it cannot be read, or nothing of it can be used.
    """
    from index_builder.interactions.cleanup import clean
    from index_builder.interactions.reader import read_interactions

    weights: Mapping[str, float] = parse_kind_weights(kinds or [])
    if columns.kind:
        weights = weights or before or {}
    found, report = read_interactions(path, columns, weights)
    cleaned, cleaning = clean(found, rules)
    return CleanedInteractions(cleaned, {**report.left_out, **cleaning.left_out}, weights)


def parse_kind_weights(kinds: list[str]) -> dict[str, float]:
    """Reads what `--kind` takes. Raises: InvalidRequest."""
    weights = {}
    for one in kinds:
        name, _, text = one.rpartition("=")
        try:
            weights[name] = float(text)
        except ValueError:
            name = ""
        if not name or not math.isfinite(weights[name]):
            raise InvalidRequest(
                f"{one!r} is no kind with its weight; write for example purchase=5", field="kind"
            )
    return weights
