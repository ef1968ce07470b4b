"""Keeps one brand from filling a page, where no policy says how diverse a list is."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.contract import PayloadField
from retrieval.recommend.policies import Policy, Quota
from retrieval.recommend.selection import Candidate, Selection
from retrieval.search.collection import ServedCollection

ATTRIBUTES = frozenset({PayloadField.ATTRIBUTES})
# Candidates beyond those of a list, for pages that others have to complete.
SPARE = 20
# Names of attributes that say who made an item; the first that a collection has counts.
_MAKERS = ("brand", "manufacturer", "maker", "vendor", "artist", "artists", "author", "authors")
# More than a hundred places take long to spread, and few people see them.
_PAGE, _MOST, _SPREAD = 10, 3, 100


def brand_attribute(served: ServedCollection, policy: Policy, diversity: float | None) -> str:
    """Returns the attribute that lists are spread over; empty if they are not.

    Args:
        diversity: Of the request; None uses the policy's.
    """
    if policy.quotas or (policy.diversity if diversity is None else diversity):
        return ""
    kinds = served.attribute_kinds
    return next((one for one in _MAKERS if kinds.get(one) == "string"), "")


def spread(candidates: Sequence[Candidate], attribute: str) -> list[Candidate]:
    """Returns the candidates in pages of ten, of which at most three share a brand.

    Others of the brand come first on the next page. If nothing else is left, they fill this one: no
    list gets shorter. Beyond a hundred places, the order is unchanged.
    """
    left, found = list(candidates), list[Candidate]()
    while left and len(found) < _SPREAD:
        page = Selection([Quota(attribute, _MOST)])
        page.take_first(left, _PAGE)
        later = [one for one in left if one.id not in page.ids]
        missing = _PAGE - len(page.candidates)
        found += [*page.candidates, *later[:missing]]
        left = later[missing:]
    return [*found, *left]
