"""Malformed rows of a build: counted, sampled, and refused above a limit."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from index_builder.documents.records import SourceLocation, SourceRow
from nearline.counts import counted
from nearline.errors import InvalidRequest

SAMPLE = 5
EMPTY_FILE = "the file is empty; save or export it again, or leave it out"


class DamagedFile(InvalidRequest):
    """The rest of a file cannot be read. A build counts it as a malformed row.

    Args:
        message: The problem.
        line: The line or row at which reading ended, from 1.
    """

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message, field="corpus")
        self.line = line


class BadRow(NamedTuple):
    """A malformed row and its problem."""

    location: SourceLocation
    reason: str

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


class BadRows:
    """The malformed rows of a build.

    Args:
        allowed: Maximum number to leave out.
        on_bad_row: Optional; called with each malformed row.
    """

    def __init__(
        self, allowed: int = 0, on_bad_row: Callable[[BadRow], None] | None = None
    ) -> None:
        self._allowed = allowed
        self._on_bad_row = on_bad_row
        self._by_source: Counter[str] = Counter()
        self.sample: list[BadRow] = []

    @property
    def count(self) -> int:
        """The number of malformed rows."""
        return self._by_source.total()

    def count_of(self, source: str) -> int:
        """Returns the number of malformed rows of a source."""
        return self._by_source[source]

    def counts(self) -> dict[str, int]:
        """Returns the number of malformed rows by source."""
        return dict(self._by_source)

    def restore(
        self, counts: Mapping[str, int], sample: Iterable[tuple[tuple[str, int], str]]
    ) -> None:
        """Restores the `counts` and `sample` of an earlier run."""
        self._by_source = Counter(counts)
        self.sample = [BadRow(SourceLocation(*location), reason) for location, reason in sample]

    def add(self, location: SourceLocation, reason: str) -> None:
        """Adds a malformed row."""
        self._by_source[location.source] += 1
        row = BadRow(location, reason)
        if len(self.sample) < SAMPLE:
            self.sample.append(row)
        if self._on_bad_row is not None:
            self._on_bad_row(row)

    def check(self) -> None:
        """Raises InvalidRequest with the sample if there are more than allowed."""
        if self.count <= self._allowed:
            return
        shown = "".join(f"\n  {row}" for row in self.sample)
        more = self.count - len(self.sample)
        rows = counted(self.count, "malformed row")
        raise InvalidRequest(
            f"{rows}, {self._allowed} allowed; fix them, or leave them out with "
            f"--max-bad-rows {self.count}:{shown}" + (f"\n  … and {more} more" if more else ""),
            field="max_bad_rows",
        )


def in_order(read: Callable[[BadRows], Iterator[SourceRow]]) -> Iterator[SourceRow | BadRow]:
    """Yields rows and malformed rows in the order of their file.

    Args:
        read: Yields the rows, and adds malformed ones to its argument.
    Raises: Errors of the reader, after the malformed rows before them.
    """
    bad: list[BadRow] = []
    try:
        for row in read(BadRows(allowed=sys.maxsize, on_bad_row=bad.append)):
            if bad:
                yield from bad
                bad.clear()
            yield row
    except Exception:
        yield from bad
        raise
    yield from bad


def reason_of(error: Exception, most: int = 200) -> str:
    """Returns at most that many characters of the message of a library's error, on one line."""
    return " ".join(str(error).split())[:most]
