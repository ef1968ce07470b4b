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
    expires_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of the times at which items expire.")
    ] = ""
