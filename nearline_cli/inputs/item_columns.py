"""Options that name the columns of items in a file."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from nearline_cli.terminal import options


class ItemColumns(NamedTuple):
    """Names of the columns; an empty name means the default of a build."""

    id_column: options.IdColumnOption = ""
    title_column: options.TitleColumnOption = ""
    text_column: options.TextColumnOption = ""
    vector_column: options.VectorColumnOption = ""
    attribute_columns: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Columns to keep as attributes, separated by commas; *: all columns without "
            "another role, and *,NAME: that column, too, although it is the text or the title.",
        ),
    ] = "*"
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:KIND",
            help="Kind of an attribute: string, int, double, bool or time, or string[], int[] and "
            "so on for lists; may be repeated. \\[default: that of the collection, else by the "
            "values]",
        ),
    ] = None
    expires_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of the times at which items expire.")
    ] = ""
