"""Which rows belong to which document, and where each stands in its text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class DocumentRows:
    """The rows of documents whose chunks lie side by side, document after document.

    Args:
        first_rows: (documents + 1,) int64, the row of each document's first chunk, and all there
            are.
        starts, ends: (rows,) whole numbers, first and past-the-last code points of each chunk.
    """

    def __init__(
        self,
        first_rows: NDArray[np.int64],
        starts: NDArray[np.integer[Any]],
        ends: NDArray[np.integer[Any]],
    ) -> None:
        self._first_rows = first_rows
        self._starts = starts
        self._ends = ends

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """(documents + 1,) the row of each document's first chunk, and all there are."""
        return self._first_rows

    def chunks_of(
        self, rows: NDArray[np.int64], documents: NDArray[np.int64]
    ) -> tuple[list[int], list[int], list[int]]:
        """Returns chunk numbers within their documents, first and past-the-last code points.

        Args:
            rows, documents: (n,) rows and what `documents_of` gave for them.
        """
        numbers = rows - self._first_rows[documents]
        return numbers.tolist(), self._starts[rows].tolist(), self._ends[rows].tolist()

    def rows_of(self, document: int) -> NDArray[np.int64]:
        """Returns the rows of a document."""
        return np.arange(self._first_rows[document], self._first_rows[document + 1])

    def rows_of_many(
        self, documents: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows of documents, document after document, and how many each has."""
        firsts = self._first_rows[documents]
        counts = self._first_rows[documents + 1] - firsts
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        return np.repeat(firsts, counts) + within, counts
