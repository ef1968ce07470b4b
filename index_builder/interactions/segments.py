"""Finds segments of users by their attributes, and what each segment likes more than others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.contract import Attributes
from retrieval.behaviour.segments import segment_names

# Each takes four bytes per item, in every shard.
_MOST = 16
# With fewer users inside or outside, a difference between them is a matter of chance.
MIN_USERS = 50
# Added to the users of an item, counted and expected, so that few say little.
_PRIOR = 5.0


def with_segments(rows: Interactions, attributes: Mapping[str, Attributes]) -> Interactions:
    """Returns the rows with the largest segments that 50 users are in, and 50 are not.

    Args:
        attributes: By user id; users without any may be omitted.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for number, user in enumerate(rows.users):
        for name in segment_names(attributes.get(user, {})):
            members[name].append(number)
    most = len(rows.users) - MIN_USERS
    enough = (name for name, users in members.items() if MIN_USERS <= len(users) <= most)
    names = sorted(enough, key=lambda name: (-len(members[name]), name))[:_MOST]
    belongs = np.zeros((len(rows.users), len(names)), np.bool_)
    for at, name in enumerate(names):
        belongs[members[name], at] = True
    return rows._replace(segments=names, belongs=belongs)


def segment_lifts(rows: Interactions) -> NDArray[np.float32]:
    """Returns how much more each segment likes each item: (items, segments) float32.

        log((users of the segment who had the item + 5) / (as many as expected + 5))
    As many are expected as there would be if the segment had the taste of all users.
    """
    count = len(rows.items)
    user, item = np.divmod(rows.pairs(), count)
    share = np.bincount(item, minlength=count) / max(len(item), 1)
    lifts = np.empty((count, len(rows.segments)), np.float32)
    for at, own in enumerate(rows.belongs.T):
        had = item[own[user]]
        found, expected = np.bincount(had, minlength=count), len(had) * share
        lifts[:, at] = np.log((found + _PRIOR) / (expected + _PRIOR))
    return lifts
