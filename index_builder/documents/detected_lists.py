"""Attributes that a CSV file has lists of although nobody declared them, so that users are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from shlex import quote
from typing import Final, NamedTuple

# Files whose cells say no kind.
DELIMITED: Final = frozenset({".csv", ".tsv"})
_EXAMPLE_ELEMENTS = 3
_EXAMPLE_CHARACTERS = 80


class DetectedList(NamedTuple):
    """An attribute whose cells were read as lists. example: One of them, as JSON."""

    source: str
    attribute: str
    example: str

    def __str__(self) -> str:
        return f"{self.attribute} of {self.source} is read as lists, such as {self.example}"

    @property
    def remedy(self) -> str:
        """How the cells stay texts."""
        return f"--attribute {quote(f'{self.attribute}:string')} keeps the text of its cells"


class DetectedLists:
    """Collects them, each once.

    Args:
        declared: Attributes with a declared kind.
        on_found: Called with each when it is found. Optional.
    """

    def __init__(
        self,
        declared: Collection[str] = (),
        on_found: Callable[[DetectedList], None] | None = None,
    ) -> None:
        self._declared = frozenset(declared)
        self._on_found = on_found
        self._seen: set[tuple[str, str]] = set()
        self.found: list[DetectedList] = []

    def see(self, source: str, attributes: Mapping[str, object]) -> None:
        """Looks at the attributes of a row."""
        if Path(source).suffix.lower() not in DELIMITED:
            return
        for name, value in attributes.items():
            if not isinstance(value, list) or not value or name in self._declared:
                continue
            if (source, name) not in self._seen:
                self._seen.add((source, name))
                self.found.append(DetectedList(source, name, _example(value)))
                if self._on_found is not None:
                    self._on_found(self.found[-1])


def _example(value: list[object]) -> str:
    text = json.dumps(value[:_EXAMPLE_ELEMENTS], ensure_ascii=False, default=str)
    return text if len(text) <= _EXAMPLE_CHARACTERS else f"{text[:_EXAMPLE_CHARACTERS]}…"
