"""What a search may ask for, by the limits of its tenant and key."""

from __future__ import annotations

import pytest

from nearline.access.limits import Limits
from nearline.contract import Grouping, RecommendOptions, SearchOptions
from nearline.errors import InvalidRequest
from nearline.filters import All, Equals, In, Not
from retrieval.router.search_limits import (
    check_filter_limits,
    check_list_limits,
    check_search_limits,
)

LIMITS = Limits(k=10, batch=3, ef_search=64, nprobe=8, filter_conditions=2, exact=False)
TWO = All(Equals("a", 1), Not(Equals("b", 2)))
THREE = All(TWO, Equals("c", 3))


def test_what_is_within_every_limit_passes() -> None:
    options = SearchOptions(k=10, ef_search=64, nprobe=8, filter=TWO)
    check_search_limits([("tenant 'shop'", LIMITS)], 3, options)
    check_search_limits([], 1_000, SearchOptions(k=10_000, exact=True, filter=THREE))
    check_search_limits([("tenant 'shop'", Limits())], 1_000, SearchOptions(exact=True))


@pytest.mark.parametrize(
    ("queries", "options", "field", "said"),
    [
        (1, SearchOptions(k=11), "options.k", "options.k is 11, and the limit of key 'k' is 10"),
        (
            1,
            SearchOptions(k=6, grouping=Grouping("brand", 2)),
            "options.k x grouping.size",
            "is 12, ",
        ),
        (4, SearchOptions(), "queries", r"queries is 4, .* is 3 \(batch\)"),
        (1, SearchOptions(ef_search=65), "options.ef_search", "is 65"),
        (1, SearchOptions(nprobe=9), "options.nprobe", "is 9"),
        (1, SearchOptions(filter=THREE), "filter", "filter is 3"),
        (1, SearchOptions(filter=In("a", (1, 2, 3))), "filter", "filter is 3"),
        (1, SearchOptions(exact=True), "options.exact", r"key 'k' do not allow \(exact\)"),
    ],
)
def test_what_exceeds_one_of_them_is_refused_with_figure_and_limit(
    queries: int, options: SearchOptions, field: str, said: str
) -> None:
    bounds = [("tenant 'shop'", Limits(k=1_000)), ("key 'k'", LIMITS)]
    with pytest.raises(InvalidRequest, match=said) as caught:
        check_search_limits(bounds, queries, options)
    assert caught.value.field == field
    if options.filter is not None:
        with pytest.raises(InvalidRequest, match=said):
            check_filter_limits(bounds, options.filter)


def test_a_list_is_as_long_as_a_search_may_be() -> None:
    bounds = [("tenant 'shop'", LIMITS)]
    check_list_limits(bounds, RecommendOptions(n=10, filter=TWO))
    with pytest.raises(InvalidRequest, match="n is 11, and the limit of tenant 'shop' is 10"):
        check_list_limits(bounds, RecommendOptions(n=11))
    with pytest.raises(InvalidRequest, match="filter is 3"):
        check_list_limits(bounds, RecommendOptions(n=1, filter=THREE))
