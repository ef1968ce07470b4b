"""A model of the ordering rule: the whole history of a document, replayed in order of time."""

from __future__ import annotations

from dataclasses import dataclass, field

from nearline.contract import AttributeValue


@dataclass(frozen=True)
class Event:
    """An event of a document: text None is a deletion; only: attributes only."""

    time: int
    text: str | None = None
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    only: bool = False
    imported: bool = False


class Model:
    """The history of one document, replayed after every build."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def state(self) -> tuple[str, dict[str, AttributeValue]] | None:
        text: str | None = None
        attributes: dict[str, AttributeValue] = {}
        for event in self.events:
            if not event.only:
                text, attributes = event.text, dict(event.attributes)
            elif text is not None:
                for name, value in event.attributes.items():
                    attributes.pop(name, None)
                    if value is not None:
                        attributes[name] = value
        return None if text is None else (text, attributes)

    def build(self, row: str | None, place: int, keep_absent: bool) -> None:
        if row is not None:
            events = self.events
            if not keep_absent and (whole := self._whole()) is not None and whole.imported:
                # This import takes the place of the earlier one.
                events = [event for event in events if event is not whole]
            found = Event(place, row, {"from": "import"}, imported=True)
            before = [event for event in events if event.time <= place]
            self.events = [*before, found, *(event for event in events if event.time > place)]
        elif not keep_absent and self.state() is not None:
            changed = [event.time for event in self._recent() if not event.imported]
            if max(changed, default=0) <= place:
                self.events = []
        self.events = self._recent()

    def _whole(self) -> Event | None:
        return next((event for event in reversed(self.events) if not event.only), None)

    def _recent(self) -> list[Event]:
        """Returns the last whole event and later ones; earlier ones no longer matter."""
        whole = self._whole()
        return [] if whole is None else self.events[self.events.index(whole) :]
