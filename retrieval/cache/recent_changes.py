"""Recent changes of items, and their effect on a cached list when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from retrieval.cache.cached_list import CachedList
from retrieval.changelog.records import ChangeEntry, ChangeKind
from retrieval.protocols.watermark import Watermark, decode_watermark


class ItemChange(NamedTuple):
    """The last change of an item: its partition of the log and its position there."""

    partition: int
    position: int
    deleted: bool


class ValidatedList(NamedTuple):
    """A cached list after recent changes.

    cached: The list without deleted items; None if the item does not exist. least: The changes that
    a new list must reflect, because items of this list have changed; None if the list is current.
    """

    cached: CachedList | None
    least: Watermark | None


class RecentChanges:
    """The last change of each item of a collection after a position of its log.

    Changes up to the position `floor` may have been dropped, so a list that does not reflect all
    changes up to the floor counts as changed.

    Args:
        start: The position.
        limit: Largest number of items, >= 2. Beyond it, the half that changed first is dropped.
    """

    def __init__(self, start: Watermark, limit: int) -> None:
        # Changes up to here may have been dropped.
        self._floor = start
        self._limit = limit
        self._items: dict[str, ItemChange] = {}

    @property
    def items(self) -> Mapping[str, ItemChange]:
        """The last change of each item by id, oldest first."""
        return self._items

    @property
    def floor(self) -> Watermark:
        """Position up to which changes may have been dropped."""
        return self._floor

    def add(self, entries: Sequence[ChangeEntry]) -> None:
        """Adds the next entries of the log."""
        for partition, position, _, change in entries:
            name = change.document_id
            self._items.pop(name, None)
            self._items[name] = ItemChange(partition, position, change.kind is ChangeKind.DELETE)
        if len(self._items) > self._limit:
            first = list(self._items)[: len(self._items) - self._limit // 2]
            dropped = [self._items.pop(name) for name in first]
            # The changes of a partition are in order of position.
            self._floor = self._floor.advanced({one.partition: one.position for one in dropped})

    def forget(self, upto: Watermark) -> None:
        """Drops the changes that a snapshot has; does nothing if it belongs to another log."""
        if upto.log_id == self._floor.log_id:
            self._floor = self._floor.advanced(dict(enumerate(upto.positions)))
            self._items = {
                name: change
                for name, change in self._items.items()
                if change.position > upto.positions[change.partition]
            }

    def read(self, cached: CachedList | None, item: str = "") -> ValidatedList:
        """Applies the changes since a list was computed.

        Deleted items are left out, even if the age of the list is unknown.

        Args:
            cached: None if the item did not exist, at an unknown time.
            item: Item whose changes affect the list; empty if there is none.
        """
        items = self._items
        own = items.get(item) if items and item else None
        if cached is None:
            written = {} if own is None or own.deleted else {own.partition: own.position}
            return ValidatedList(None, self._floor.advanced(written) if written else None)
        changes = {one: items[one] for one in cached.ids if one in items} if items else {}
        deleted = [one for one, change in changes.items() if change.deleted]
        kept = cached.without(deleted) if deleted else cached
        has = decode_watermark(cached.watermark, "watermark of a cached list")
        if has is None or has.log_id != self._floor.log_id:
            return ValidatedList(kept, None)
        changed = [change for change in changes.values() if not change.deleted]
        newer = {
            one.partition: one.position
            for one in sorted(changed if own is None else [*changed, own])
            if one.position > has.positions[one.partition]
        }
        if newer or not has.covers(self._floor):
            return ValidatedList(kept, self._floor.advanced(newer))
        return ValidatedList(kept, None)
