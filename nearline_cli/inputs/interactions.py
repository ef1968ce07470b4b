"""Options of commands that read interactions from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.durations import Duration
from nearline.errors import InvalidRequest
from nearline_cli.terminal import durations

if TYPE_CHECKING:
    from index_builder.interactions.records import Interactions


UserColumn = Annotated[str, typer.Option(metavar="NAME", help="Column of the user.")]
ItemColumn = Annotated[str, typer.Option(metavar="NAME", help="Column of the item.")]
TimeColumn = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the time: ISO 8601, or seconds since 1970.")
]


class CleanedInteractions(NamedTuple):
    """Interactions after cleaning.

    left_out: Number of interactions left out, by reason. weights: Weight of each kind.
    """

    interactions: Interactions
    left_out: Mapping[str, int]
    weights: Mapping[str, float]


class InteractionOptions(NamedTuple):
    """Options that say how a file of interactions is read and cleaned."""

    user_column: UserColumn = "user"
    item_column: ItemColumn = "item"
    time_column: TimeColumn = "time"
    kind_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="Column of the kind. \\[default: all are of one kind]"),
    ] = ""
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            help="Weight of a kind, for example purchase=5; may be repeated. Kinds that are not "
            "named are left out. \\[default: every kind counts 1]",
        ),
    ] = None
    value_column: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Column whose values multiply the weights. \\[default: none]"
        ),
    ] = ""
    min_per_user: Annotated[
        int, typer.Option(min=1, help="Leave out users with fewer interactions.")
    ] = 1
    min_per_item: Annotated[
        int, typer.Option(min=1, help="Leave out items with fewer interactions.")
    ] = 1
    max_per_user_day: Annotated[
        int,
        typer.Option(
            min=0,
            help="Leave out users with more interactions on any day: they are bots. 0: no limit.",
        ),
    ] = 0
    duplicates_within: Annotated[
        float,
        typer.Option(
            parser=durations.read_duration,
            metavar=durations.METAVAR,
            help="Count repeated interactions of a user with an item within this time once. 0: "
            "count each.",
        ),
    ] = Duration(0)

    def load(self, path: Path, known: Mapping[str, float] | None = None) -> CleanedInteractions:
        """Reads and cleans a file.

        Args:
            path: .csv, .csv.gz, .tsv or .parquet.
            known: Weights to use if there is a column of kinds and no option gives weights.
        Raises:
            InvalidRequest: The file cannot be read, or contains nothing usable.
        """
        from index_builder.interactions.cleanup import CleaningRules, clean
        from index_builder.interactions.reader import ColumnNames, read_interactions

        columns = ColumnNames(
            self.user_column,
            self.item_column,
            self.time_column,
            self.kind_column,
            self.value_column,
        )
        rules = CleaningRules(
            self.min_per_user, self.min_per_item, self.max_per_user_day, self.duplicates_within
        )
        weights: Mapping[str, float] = self.kind_weights()
        if self.kind_column:
            weights = weights or known or {}
        interactions, report = read_interactions(path, columns, weights)
        cleaned, cleaning = clean(interactions, rules)
        return CleanedInteractions(cleaned, {**report.left_out, **cleaning.left_out}, weights)

    def kind_weights(self) -> dict[str, float]:
        """Returns the weights that `--kind` gives, by kind.

        Raises:
            InvalidRequest: One is not of the form NAME=WEIGHT.
        """
        weights = {}
        for text in self.kind or ():
            name, _, weight = text.rpartition("=")
            try:
                weights[name] = float(weight)
            except ValueError:
                name = ""
            if not name or not math.isfinite(weights[name]):
                raise InvalidRequest(
                    f"--kind {text!r} does not give a weight; write for example purchase=5",
                    field="kind",
                )
        return weights
