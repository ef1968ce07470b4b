"""Which items a caller may see, by an attribute that lists their readers."""

from __future__ import annotations

from collections.abc import Set

from nearline.access.caller import PUBLIC, Caller
from nearline.contract import DEFAULT_TENANT, Attributes, Filter
from nearline.errors import PermissionDenied
from nearline.filters import In, both

# Description of the setting of every service that filters.
READERS_ATTRIBUTE = (
    'Attribute of items that lists who may read them: "public", "tenant:NAME", "role:NAME". '
    "Empty: every caller may read every item."
)


def readers_warning(attribute: str, *, has_credentials: bool) -> str:
    """Returns what is wrong if items have readers, and nobody can tell who reads; empty: nothing.

    Args:
        attribute: As for `ReaderFilter`.
        has_credentials: Whether the service tells callers apart.
    """
    if not attribute or has_credentials:
        return ""
    return (
        f"readers_attribute is {attribute!r}, and without credentials every caller is of the "
        f"tenant {DEFAULT_TENANT!r}, who may change all items"
    )


class ReaderFilter:
    """Restricts what callers see.

    Args:
        attribute: Attribute of items that lists their readers: "public", "tenant:NAME" and
            "role:NAME". Nobody may see an item without it. If empty, every caller sees every
            item.
    """

    def __init__(self, attribute: str = "") -> None:
        self._attribute = attribute

    def visible_to(self, caller: Caller) -> Filter | None:
        """Returns a filter for the items that a caller may see; None: all."""
        if not self._attribute or caller.sees_everything:
            return None
        return In(self._attribute, caller.reads)

    def narrow(self, condition: Filter | None, caller: Caller) -> Filter | None:
        """Returns a filter for items that both the request and the caller's rights allow."""
        return both(condition, self.visible_to(caller))

    def sees(self, caller: Caller, attributes: Attributes) -> bool:
        """Returns whether a caller may see an item with these attributes."""
        if not self._attribute or caller.sees_everything:
            return True
        return not _readers(attributes, self._attribute).isdisjoint(caller.reads)

    def ownership(self, caller: Caller) -> Ownership | None:
        """Returns which items a caller may write; None: all."""
        if not self._attribute or caller.sees_everything or caller.names_tenants:
            return None
        return Ownership(self._attribute, caller)


class Ownership:
    """The items that a caller may write: those of its tenant whose readers are all its own names.

    An item that is public, that another tenant may read, or that names roles alone, which callers
    of any tenant may have, belongs to somebody else.
    """

    def __init__(self, attribute: str, caller: Caller) -> None:
        self.tenant = caller.tenant
        self._attribute = attribute
        self._tenant = f"tenant:{caller.tenant}"
        self._names = frozenset(caller.reads) - {PUBLIC}

    @property
    def filter(self) -> Filter:
        """Matches the items that name the tenant."""
        return In(self._attribute, (self._tenant,))

    def includes(self, attributes: Attributes) -> bool:
        """Returns whether the caller may replace or delete an item with these attributes."""
        readers = _readers(attributes, self._attribute)
        return self._tenant in readers and readers <= self._names

    def claim(self, attributes: Attributes, single_valued: Set[str] = frozenset()) -> Attributes:
        """Returns the attributes of an item to write; one that names no readers is the tenant's.

        Args:
            single_valued: Attributes of which no item of the collection has a list.
        Raises: PermissionDenied: its readers are not all names of the caller.
        """
        if attributes.get(self._attribute) is None:
            one = self._attribute in single_valued
            return {**attributes, self._attribute: self._tenant if one else [self._tenant]}
        self.check(attributes)
        return attributes

    def check(self, attributes: Attributes) -> None:
        """Checks the attributes of an item that are to be set, where they name its readers.

        Raises: PermissionDenied: the readers are not all names of the caller.
        """
        if self._attribute in attributes and not self.includes(attributes):
            named = ", ".join(sorted(self._names))
            raise PermissionDenied(
                f"{self._attribute} may name only {named} in your items, and must name "
                f"{self._tenant}; leave it out, and only that may read the item"
            )


def _readers(attributes: Attributes, attribute: str) -> set[str]:
    readers = attributes.get(attribute)
    named = readers if isinstance(readers, list | tuple) else (readers,)
    return {str(one) for one in named if one is not None}
