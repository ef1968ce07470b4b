"""Keeps one brand from filling a page, where no policy says how diverse a list is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nearline.contract import Attributes, PayloadField
from retrieval.recommend.policies import Policy
from retrieval.recommend.selection import Candidate
from retrieval.search.collection import ServedCollection

ATTRIBUTES = frozenset({PayloadField.ATTRIBUTES})
# Names of attributes that say who made an item; the first that a collection has counts.
_MAKERS = ("brand", "manufacturer", "maker", "vendor", "artist", "artists", "author", "authors")
_PAGE, _MOST = 10, 3
# Places that are spread; more take long, and fewer people see them.
_SPREAD = 100
# Candidates beyond those of a list, for pages that others have to complete.
SPARE = 20


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
    """Returns the candidates so that at most three of ten that follow each other share a brand.

    A candidate beyond that comes first on the next page. If nothing else is left, it comes all the
    same: no list gets shorter. An item of several brands counts for each. Beyond a hundred places,
    the order is unchanged.

    Args:
        candidates: Best first.
    """
    left, spread_out = list(candidates), list[Candidate]()
    while left and len(spread_out) < _SPREAD:
        counts: Counter[object] = Counter()
        page, later = list[Candidate](), list[Candidate]()
        for at, one in enumerate(left):
            if len(page) == _PAGE:
                later += left[at:]
                break
            brands = _brands(one.attributes or {}, attribute)
            if any(counts[brand] >= _MOST for brand in brands):
                later.append(one)
            else:
                counts.update(brands)
                page.append(one)
        missing = _PAGE - len(page)
        spread_out += [*page, *later[:missing]]
        left = later[missing:]
    return [*spread_out, *left]


def _brands(attributes: Attributes, attribute: str) -> frozenset[object]:
    value = attributes.get(attribute)
    values = value if isinstance(value, list | tuple) else (value,)
    return frozenset(one for one in values if one is not None and one != "")
