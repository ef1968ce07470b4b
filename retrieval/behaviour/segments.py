"""Segments of users: those who share the value of an attribute, such as country="DE".

For each item and segment, a snapshot has the logarithm of how much larger the item's share is among
the interactions of the segment than among all; 0 for items about which nothing is known. For a user
in several segments, these are added up; for one in none, the sum is 0.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from nearline.contract import Attributes

# The table of these numbers: (items, segments) float32.
SEGMENT_LIFTS = "segment_lifts"


def segment_names(attributes: Attributes) -> list[str]:
    """Returns the names of the segments of a user."""
    return [f"{name}={json.dumps(one, ensure_ascii=False)}" for name, one in attributes.items()]


def segments_of(names: Collection[str], known: Sequence[str]) -> tuple[int, ...]:
    """Returns the numbers of some segments among those that a snapshot knows, ascending."""
    return tuple(number for number, name in enumerate(known) if name in names)
