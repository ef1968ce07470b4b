"""Output of the commands: JSON lines, tables, and one line per error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from nearline.errors import NearlineError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Characters of a column in tables with problems, which are whole sentences.
SENTENCE_WRAP = 100
_FILE_WIDTH = 10_000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_SPACE = re.compile(r"\s")


class MarkedText(NamedTuple):
    """A cell of a table: a text, and the first and past-the-end places of its marked parts."""

    text: str
    spans: Sequence[tuple[int, int]]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]


def print_json(record: Mapping[str, object]) -> None:
    """Writes one JSON object as a line to standard output and flushes it."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def console(*, error: bool = False) -> Console:
    """Returns a console on standard output, or on standard error, that prints texts unchanged."""
    # Imported late: loading rich takes longer than most commands run.
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    wrap: int | None = None,
) -> None:
    """Prints a table; numbers are right-aligned, and texts too long for the terminal are folded.

    Marked texts are bold in a terminal; elsewhere their marked parts are between asterisks.

    Args:
        columns: Their names.
        rows: Cells by column.
        title: Title of the table. Optional.
        wrap: Characters of a column beyond which texts are folded anywhere. Optional.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    filled = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(columns):
        numeric = bool(filled) and all(isinstance(row[index], int | float) for row in filled)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(name, justify=justify, overflow="fold", max_width=wrap)
    for row in filled:
        table.add_row(*map(_rich_cell, row))
    # A table written to a file has no width.
    Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)


def print_figures(
    record: Mapping[str, object], *, as_json: bool, names: tuple[str, str] = ("figure", "value")
) -> None:
    """Prints a record as a JSON object, or as a table with these column names."""
    if as_json:
        print_json(record)
    else:
        print_table(names, record.items())


def print_result(record: Mapping[str, object], text: str, *, as_json: bool) -> None:
    """Prints a record as a JSON object, or as a text that sums it up."""
    if as_json:
        print_json(record)
    else:
        console().print(text)


def print_error(error: NearlineError, *, as_json: bool = False) -> None:
    """Prints an error to standard error: one line, or one JSON object."""
    if as_json:
        record = {"error": error.reason, "message": error.message}
        sys.stderr.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"nearline: {error.message}\n")
    sys.stderr.flush()


def print_note(text: str) -> None:
    """Writes a line to standard error and flushes it; drops it if the disk is full.

    Raises: BrokenPipeError: Nobody reads it.
    """
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        return


def to_milliseconds(seconds: float | None) -> float | None:
    """Returns seconds as milliseconds with three decimals; None stays None."""
    return None if seconds is None else round(seconds * 1e3, 3)


def one_line(text: str, width: int) -> str:
    """Returns the text on one line of at most `width` characters; an ellipsis marks a cut."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"


def format_bytes(count: float) -> str:
    """Returns a readable number of bytes: 1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_age(seconds: float | None) -> str:
    """Returns a readable age: 90.0 is "2 min", None is empty."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def escaped(text: str) -> str:
    """Returns a text with its control characters escaped: a line feed becomes "\\n"."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _rich_cell(value: object) -> Text:
    from rich.text import Text

    if not isinstance(value, MarkedText):
        return Text(_cell(value))
    # Of the same length, so that the spans still hold.
    text = _SPACE.sub(" ", value.text)
    cell, at, bold = Text(), 0, sys.stdout.isatty()
    for start, end in value.spans:
        cell.append(escaped(text[at:start]))
        marked = escaped(text[start:end])
        cell.append(marked if bold else f"*{marked}*", "bold" if bold else None)
        at = end
    return cell.append(escaped(text[at:]))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"
    return escaped(str(value))


def json_record(value: object) -> dict[str, object]:
    """Returns a record whose values JSON can represent."""

    def convert(value: object) -> object:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, list | tuple) else value

    record = convert(value)
    assert isinstance(record, dict)
    return record
