"""Checks a search against the limits of its tenant and key."""

from __future__ import annotations

from collections.abc import Sequence

from nearline import contract as c
from nearline.access.limits import Limits, check_limit
from nearline.errors import InvalidRequest
from nearline.filters import In, conditions, text_conditions


def check_search_limits(
    bounds: Sequence[tuple[str, Limits]], queries: int, options: c.SearchOptions
) -> None:
    """Checks a search.

    Args:
        bounds: Limits that apply, each with whose they are, such as "tenant 'shop'".
        queries: Number of queries.
        options: Options of the search.
    Raises: InvalidRequest: it asks for more than a limit allows.
    """
    if not bounds:
        return
    size = 1 if options.grouping is None else max(1, options.grouping.size)
    asked = (
        # Groups of several hits are as many hits.
        ("k", options.k * size, "options.k" if size == 1 else "options.k x grouping.size"),
        ("batch", queries, "queries"),
        ("ef_search", options.ef_search or 0, "options.ef_search"),
        ("nprobe", options.nprobe or 0, "options.nprobe"),
    )
    for whose, limits in bounds:
        for name, value, field in asked:
            check_limit(whose, limits, name, value, field)
        _check_filter(whose, limits, options.filter)
        if options.exact and not limits.exact:
            raise InvalidRequest(
                f"the search is exact, which the limits of {whose} do not allow (exact); leave it "
                "out, or ask the operator",
                field="options.exact",
            )


def check_list_limits(bounds: Sequence[tuple[str, Limits]], options: c.RecommendOptions) -> None:
    """Checks a list. Raises: InvalidRequest: it is too long, or its filter has too many parts."""
    for whose, limits in bounds:
        check_limit(whose, limits, "k", options.n, "n")
    check_filter_limits(bounds, options.filter)


def check_filter_limits(bounds: Sequence[tuple[str, Limits]], filter: c.Filter | None) -> None:
    """Checks the filter of a request. Raises: InvalidRequest: it has too many conditions."""
    for whose, limits in bounds:
        _check_filter(whose, limits, filter)


def price_bounds(server: int, bounds: Sequence[tuple[str, Limits]]) -> Sequence[tuple[str, int]]:
    """Returns the most comparisons of a search, each with whose limit it is.

    Args:
        server: That of the server.
        bounds: Limits of the caller, each with whose they are.
    """
    own = [(whose, one.comparisons) for whose, one in bounds if one.comparisons is not None]
    return (*own, ("the server (--max-comparisons)", server))


def _check_filter(whose: str, limits: Limits, filter: c.Filter | None) -> None:
    if filter is not None and limits.filter_conditions is not None:
        several = (len(one.values) if isinstance(one, In) else 1 for one in conditions(filter))
        count = sum(several) + sum(1 for _ in text_conditions(filter))
        check_limit(whose, limits, "filter_conditions", count, "filter")
