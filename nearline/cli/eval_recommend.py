"""`nearline eval recommend`: models of behaviour against what users did later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nearline.cli import output
from nearline.errors import InvalidRequest

_SPLITS = "last-n:N, first-n:N, time:SHARE, loo, cold-users:SHARE"


def recommend(
    interactions: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Interactions: .csv, .csv.gz, .tsv or .parquet."),
    ],
    user_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the user.")] = "user",
    item_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the item.")] = "item",
    time_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="Column of the time: ISO 8601, or seconds since 1970."),
    ] = "time",
    kind_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of the kind. \\[default: all are of one]")
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            help="How much a kind counts; may be repeated, others are left out. "
            "\\[default: all count 1]",
        ),
    ] = None,
    value_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="Column that weights multiply with. \\[default: none]"),
    ] = "",
    min_per_user: Annotated[
        int, typer.Option(min=1, help="Interactions that a user must have to count.")
    ] = 1,
    min_per_item: Annotated[
        int, typer.Option(min=1, help="Interactions that an item must have to count.")
    ] = 1,
    max_per_user_day: Annotated[
        int,
        typer.Option(
            min=0, help="A user with more on any day is a bot, and left out whole. 0: nobody is."
        ),
    ] = 0,
    duplicates_within: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="The same item again within this time of a user counts once. 0: each counts.",
        ),
    ] = 0.0,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help=f"What is held out: {_SPLITS}.")
    ] = "time:0.8",
    repeats: Annotated[
        bool, typer.Option("--repeats", help="What a user had may be recommended again.")
    ] = False,
    k: Annotated[int, typer.Option(min=1, max=1_000, help="Places of a list.")] = 10,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    as_json: output.JsonFlag = False,
) -> None:
    """Measure models of behaviour on interactions that were held out; every item is ranked.

    Settings, and the blend, are chosen on a validation split of the same kind inside the training
    part. Intervals are 95%, over users; `blended_ahead` is the gain of the blend over the model.
    The models are measured alone, before any rule of a surface.
    """
    from index_builder.behaviour.evaluation import asks_only_known, evaluate, rows_of
    from index_builder.interactions.cleaning import Rules, clean
    from index_builder.interactions.reading import Columns, read_interactions

    if split.startswith("cold-items"):
        raise InvalidRequest(
            f"cold-items needs what the items say of themselves, which is not read here yet; use "
            f"one of {_SPLITS}",
            field="split",
        )
    columns = Columns(user_column, item_column, time_column, kind_column, value_column)
    began = time.monotonic()
    read, report = read_interactions(interactions, columns, _weights(kind))
    rules = Rules(min_per_user, min_per_item, max_per_user_day, duplicates_within)
    cleaned, cleaning = clean(read, rules)
    evaluation = evaluate(cleaned, split, k, repeats=repeats, seed=seed)
    about = {
        "split": split,
        "repeats": repeats,
        "only_known_items": asks_only_known(split),
        f"validation_ndcg@{k}": round(evaluation.choice.validation, 4),
        "interactions": cleaning.kept,
        "left_out": {**report.left_out, **cleaning.left_out},
        "seconds": round(time.monotonic() - began, 1),
    }
    rows = rows_of(evaluation, k)
    if as_json:
        for row in rows:
            output.print_json({**row, **about})
        return
    shown = [name for name in rows[0] if name != "settings"]
    output.print_table(shown, [[row[name] for name in shown] for row in rows])
    output.print_table(("figure", "value"), [("blended", rows[-1]["settings"]), *about.items()])


def _weights(kinds: list[str] | None) -> dict[str, float] | None:
    if not kinds:
        return None
    weights = {}
    for one in kinds:
        name, _, text = one.rpartition("=")
        try:
            weights[name] = float(text)
        except ValueError:
            name = ""
        if not name:
            raise InvalidRequest(
                f"{one!r} is no kind with its weight; write for example purchase=5", field="kind"
            )
    return weights
