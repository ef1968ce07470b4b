"""Which items were changed or deleted, and what that does to a hot list when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from retrieval.cache.cached_list import CachedList
from retrieval.changelog.records import ChangeEntry, ChangeKind
from retrieval.protocols.watermark import Watermark, decode_watermark


class ItemChange(NamedTuple):
    """The last change of an item: its partition of the log, its number in there."""

    partition: int
    position: int
    deleted: bool


class ValidatedList(NamedTuple):
    """What a hot list is, now that some items were changed.

    hot: Without those that were deleted; None: there is no such item. least: Some of the others
    were changed after the list was made: ask for one that has the changes up to here. None: the
    list is as good as new.
    """

    hot: CachedList | None
    least: Watermark | None


class RecentChanges:
    """The last change of each item of a collection after a position of its log.

    What is forgotten is not lost: a list that does not have the changes up to the position before
    which some were forgotten is taken to be touched.

    Args:
        start: The position.
        limit: Most items, >= 2; with one more, those touched first are forgotten, half of all.
    """

    def __init__(self, start: Watermark, limit: int) -> None:
        # All changes up to here may have been forgotten.
        self._floor = start
        self._limit = limit
        self._items: dict[str, ItemChange] = {}

    @property
    def items(self) -> Mapping[str, ItemChange]:
        """By id, in the order in which they were touched last."""
        return self._items

    @property
    def floor(self) -> Watermark:
        """Position before which changes were forgotten."""
        return self._floor

    def add(self, entries: Sequence[ChangeEntry]) -> None:
        """Takes in what comes next in the log."""
        for partition, position, _, change in entries:
            name = change.document_id
            self._items.pop(name, None)
            self._items[name] = ItemChange(partition, position, change.kind is ChangeKind.DELETE)
        if len(self._items) > self._limit:
            first = list(self._items)[: len(self._items) - self._limit // 2]
            touches = [self._items.pop(name) for name in first]
            # Those of a partition come in order.
            self._floor = self._floor.advanced({one.partition: one.position for one in touches})

    def forget(self, upto: Watermark) -> None:
        """Forgets what a snapshot has; nothing where it belongs to another log."""
        if upto.log_id == self._floor.log_id:
            self._floor = self._floor.advanced(dict(enumerate(upto.positions)))
            self._items = {
                name: touch
                for name, touch in self._items.items()
                if touch.position > upto.positions[touch.partition]
            }

    def read(self, hot: CachedList | None, item: str = "") -> ValidatedList:
        """Applies to a list what was changed since it was made.

        Deleted items are left out, also where it is not known how old the list is.

        Args:
            hot: None: it was found that there is no such item, it is not known when.
            item: That the list follows from; empty: none, whose changes would change the list.
        """
        items = self._items
        own = items.get(item) if items and item else None
        if hot is None:
            written = {} if own is None or own.deleted else {own.partition: own.position}
            return ValidatedList(None, self._floor.advanced(written) if written else None)
        touched = {one: items[one] for one in hot.ids if one in items} if items else {}
        gone = [one for one, touch in touched.items() if touch.deleted]
        kept = hot.without(gone) if gone else hot
        has = decode_watermark(hot.watermark, "watermark of a hot list")
        if has is None or has.log_id != self._floor.log_id:
            return ValidatedList(kept, None)
        changed = [touch for touch in touched.values() if not touch.deleted]
        newer = {
            one.partition: one.position
            for one in sorted(changed if own is None else [*changed, own])
            if one.position > has.positions[one.partition]
        }
        if newer or not has.covers(self._floor):
            return ValidatedList(kept, self._floor.advanced(newer))
        return ValidatedList(kept, None)
