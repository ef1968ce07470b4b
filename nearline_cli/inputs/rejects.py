"""Documents that a command leaves out: reported and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from nearline_cli.terminal import output

_MAX_RECORDS = 1_000


@dataclass(slots=True)
class Rejects:
    """Documents that were left out so far.

    as_json: Report nothing before the end. bad: The first thousand, as JSON objects. bad_count:
        Their total number.
    """

    as_json: bool
    bad: list[dict[str, object]] = field(default_factory=list)
    bad_count: int = 0

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
            if not self.as_json:
                output.console(error=True).print(f"{place}: {message}", markup=False)
