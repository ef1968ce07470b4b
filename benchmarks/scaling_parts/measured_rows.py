"""Measured rows in a file of JSON lines, which a later run continues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from nearline.errors import InvalidRequest

SEARCHES, LISTS, REDIS = "searches", "lists", "redis"
# What a row is about: rows that agree in these are the same measurement.
_SUBJECT = {
    SEARCHES: ("vectors", "dim", "index", "shards", "layout", "callers"),
    LISTS: ("items", "users", "shards", "path"),
    REDIS: ("users",),
}
_MAX_ROWS = 10_000
Row: TypeAlias = dict[str, float | str]


class MeasuredRows:
    """Rows in the order of their measurement, on disk if there is a file."""

    def __init__(self, path: Path | None) -> None:
        """Reads the rows that the file has.

        Raises:
            InvalidRequest: It has other content, or more than 10,000 rows.
        """
        self._path = path
        self.rows: list[Row] = []
        if path is None or not path.exists():
            return
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    self._append(json.loads(line))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{path} has no rows of this command ({type(error).__name__}: {error}); name "
                "another file, or remove it",
                field="out",
            ) from error

    def _append(self, row: Row) -> None:
        _subject(row)
        if len(self.rows) == _MAX_ROWS:
            raise ValueError(f"it has more than {_MAX_ROWS} rows")
        self.rows.append(row)

    def has(self, about: Mapping[str, float | str]) -> bool:
        """Returns whether a measurement was made: `kind` and its subject."""
        wanted = _subject(about)
        return any(_subject(row) == wanted for row in self.rows)

    def add(self, row: Row) -> None:
        """Adds a row, also to the file."""
        self._append(row)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def of_kind(self, kind: str) -> list[Row]:
        """Returns the rows of a kind."""
        return [row for row in self.rows if row["kind"] == kind]


def _subject(row: Mapping[str, float | str]) -> tuple[float | str, ...]:
    kind = str(row["kind"])
    return (kind, *(row[name] for name in _SUBJECT[kind]))
