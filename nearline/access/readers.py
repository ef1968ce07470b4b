"""Which items a caller may see, by an attribute that lists their readers."""

from __future__ import annotations

from nearline.access.caller import Caller
from nearline.contract import Attributes, Filter
from nearline.filters import All, In


class ReaderFilter:
    """Restricts what callers see.

    Args:
        attribute: Attribute of items that lists their readers: "public", "tenant:NAME" and
            "role:NAME". Nobody may see an item without it. If empty, every caller sees every
            item.
    """

    def __init__(self, attribute: str = "") -> None:
        self._attribute = attribute

    def narrow(self, condition: Filter | None, caller: Caller) -> Filter | None:
        """Returns a filter for items that both the request and the caller's rights allow."""
        if not self._attribute or caller.sees_everything:
            return condition
        mine = In(self._attribute, caller.reads)
        return mine if condition is None else All(condition, mine)

    def sees(self, caller: Caller, attributes: Attributes) -> bool:
        """Returns whether a caller may see an item with these attributes."""
        if not self._attribute or caller.sees_everything:
            return True
        readers = attributes.get(self._attribute)
        named = readers if isinstance(readers, list | tuple) else (readers,)
        return not set(caller.reads).isdisjoint(str(one) for one in named if one is not None)
