"""What the commands print: JSON lines for machines, tables for people, one line for an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import NearlineError

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 10_000

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line, for programs.")
]


def print_json(record: Mapping[str, object]) -> None:
    """Writes one JSON object as one line to standard output, at once."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def console(*, error: bool = False) -> Console:
    """Makes a console on standard output, or on standard error."""
    # Imported late: rich costs more start-up time than most commands need in all.
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Prints a table; numbers stand to the right, long texts are folded."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    filled = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(columns):
        numeric = bool(filled) and all(isinstance(row[index], int | float) for row in filled)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in filled:
        table.add_row(*(Text(_cell(value)) for value in row))
    # Where no terminal says how wide it is, a table in a file should not be folded.
    Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)


def print_error(error: NearlineError, *, as_json: bool = False) -> None:
    """Prints an error to standard error: one line, or one JSON object."""
    if as_json:
        record = {"error": error.reason, "message": error.message}
        sys.stderr.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"nearline: {error.message}\n")
    sys.stderr.flush()


def print_note(text: str) -> None:
    """Writes a line to standard error and flushes it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def to_milliseconds(seconds: float | None) -> float | None:
    """Returns seconds as milliseconds, three digits behind the point; None stays None."""
    return None if seconds is None else round(seconds * 1e3, 3)


def one_line(text: str, width: int) -> str:
    """Returns the text on one line of at most `width` characters; a cut shows as an ellipsis."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"


def format_bytes(count: float) -> str:
    """Returns a number of bytes for people: 1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"
    return str(value)


def json_record(value: object) -> dict[str, object]:
    """Returns a record as JSON can hold it."""

    def of(one: object) -> object:
        if isinstance(one, Enum):
            return one.value
        if isinstance(one, bytes):
            return one.hex()
        if isinstance(one, datetime):
            return one.isoformat()
        if isinstance(one, dict):
            return {key: of(each) for key, each in one.items()}
        return [of(each) for each in one] if isinstance(one, list | tuple) else one

    record = of(value)
    assert isinstance(record, dict)
    return record
