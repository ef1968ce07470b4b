"""Documents that a command leaves out, and lists that it found in cells: reported and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nearline_cli.terminal import output

if TYPE_CHECKING:
    from index_builder.documents.detected_lists import DetectedList

_MAX_RECORDS = 1_000
_MAX_SHOWN = 20


@dataclass(slots=True)
class Rejects:
    """Documents that were left out so far.

    as_json: Report nothing before the end; otherwise, the first twenty are reported. bad: The first
        thousand, as JSON objects. bad_count: Their total number. lists: Attributes that were read
    as lists without being declared.
    """

    as_json: bool
    bad: list[dict[str, object]] = field(default_factory=list)
    bad_count: int = 0
    lists: list[DetectedList] = field(default_factory=list)

    def detect(self, found: DetectedList) -> None:
        """Reports an attribute that is read as lists, and how to keep its text."""
        self.lists.append(found)
        if not self.as_json:
            output.print_note(output.escaped(f"{found}; {found.remedy}"))

    def list_records(self) -> list[dict[str, object]]:
        """Returns the detected lists as JSON objects."""
        return [one._asdict() for one in self.lists]

    def refuse(self, place: str, reason: str, message: str, document_id: str = "") -> None:
        """Counts a document that is left out, and reports it."""
        self.bad_count += 1
        if len(self.bad) < _MAX_RECORDS:
            record: dict[str, object] = {
                "place": place,
                "id": document_id,
                "reason": reason,
                "message": message,
            }
            self.bad.append(record)
        if not self.as_json and self.bad_count <= _MAX_SHOWN:
            output.console(error=True).print(f"{place}: {message}")
        elif not self.as_json and self.bad_count == _MAX_SHOWN + 1:
            output.print_note(f"… more; --json lists the first {_MAX_RECORDS:,}")
