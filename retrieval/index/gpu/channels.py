"""The agreement between workers and the processes that call them."""

from __future__ import annotations

from typing import Generic, TypeVar

from nearline.workers.process import Message

# Channels: loading does not delay searches.
SEARCHES, LOADS = 0, 1
_Held = TypeVar("_Held")


class Refused(Exception):
    """A worker is well, but cannot answer such a search."""


class HeldData(Generic[_Held]):
    """The data that a worker holds, by key, and the calls that free it."""

    def __init__(self) -> None:
        self.by_key: dict[str, _Held] = {}

    def keep(self, call: Message) -> Message:
        """Frees all data but that of some keys."""
        for key in self.by_key.keys() - set(call.values["keys"]):
            del self.by_key[key]
        return Message({})

    def drop(self, call: Message) -> Message:
        """Frees data; data that does not exist is ignored."""
        self.by_key.pop(call.values["key"], None)
        return Message({})

    def searched(self, call: Message) -> _Held:
        """Returns the data that a search names.

        Raises: Refused: it was freed before the search arrived.
        """
        key = call.values["key"]
        if key not in self.by_key:
            raise Refused("it does not hold these vectors")
        return self.by_key[key]
