"""How sure the service must be to answer, for all collections and for some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from nearline.contract import Strictness

_FORM = "use strict, balanced or lenient, then NAME=WORD for collections: balanced,policies=strict"


@dataclass(frozen=True, slots=True)
class StrictnessRules:
    """The strictness of questions that ask for none.

    default: Of collections without a rule. collections: Of others, by name.
    """

    default: Strictness = Strictness.BALANCED
    collections: Mapping[str, Strictness] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads rules such as "balanced,policies=strict"; without a default, it is balanced.

        Raises: ValueError: the text has another form, or names a collection twice.
        """
        rules: dict[str, Strictness] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, word = (one.strip() for one in part.rpartition("="))
            if equals and not name:
                raise ValueError(f"{part!r} names no collection; {_FORM}")
            if name in rules:
                raise ValueError(f"{part!r} is the second rule for {name or 'all'!r}; {_FORM}")
            try:
                rules[name] = Strictness(word)
            except ValueError:
                raise ValueError(f"{part!r} has no known strictness; {_FORM}") from None
        return cls(rules.pop("", Strictness.BALANCED), rules)

    def of(self, collection: str) -> Strictness:
        """Returns the strictness of a collection."""
        return self.collections.get(collection, self.default)
