"""Shape of a filter as a metric label with few distinct values."""

from __future__ import annotations

from nearline.filters import All, Any, Equals, Exists, Filter, In, Not, Phrase, Range, Words

NONE = "none"
_MOST_PARTS = 4


def filter_shape(condition: Filter | None) -> str:
    """Returns the shape of a filter.

    Args:
        condition: The filter; None without one.
    Returns: "none", "eq", "in", "range", "exists", "words", "phrase", or a compound such as
        "and(eq,range)". A compound lists the distinct shapes of its parts in alphabetical order,
        and nested compounds without their parts. With more than four distinct shapes it is
        "and(many)".
    """
    return NONE if condition is None else _shape(condition, deep=True)


def _shape(condition: Filter, *, deep: bool) -> str:
    match condition:
        case Equals():
            return "eq"
        case In():
            return "in"
        case Range():
            return "range"
        case Exists():
            return "exists"
        case Words():
            return "words"
        case Phrase():
            return "phrase"
        case Not(part):
            return _compound("not", (part,), deep=deep)
        case All(parts):
            return _compound("and", parts, deep=deep)
        case Any(parts):
            return _compound("or", parts, deep=deep)


def _compound(name: str, parts: tuple[Filter, ...], *, deep: bool) -> str:
    if not deep:
        return name
    shapes = sorted({_shape(part, deep=False) for part in parts})
    return f"{name}(many)" if len(shapes) > _MOST_PARTS else f"{name}({','.join(shapes)})"
