"""Translates typed filters into boolean expressions of Milvus.

The expressions refer to the JSON field `attributes` and to the columns of a row. One text serves
Milvus Lite 3.2 and servers from 2.3 on, which differ: in Lite a comparison with a missing attribute
is unknown, and so is its negation, while a server treats it as false. Lite has no `in` for JSON
paths, and treats a text that looks like a list as one.

Attributes must be stored in the kind of their column: doubles as doubles, times as integer
microseconds since 1970, and null not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from nearline import filters as f
from nearline.errors import Unsupported
from nearline.filters import Filter, FilterValue
from nearline.times import to_us
from retrieval.index.filtering.numeric_bounds import Bound, bounds_of, equal_values
from retrieval.index.filtering.validation import check_kinds

# Milvus parses the expression of every search: 166 kB took 0.8 s, both in Lite and in 2.3.
MAX_EXPRESSION_BYTES = 64 << 10
# Operands per node of the operator tree. Servers nest operators, and Lite exhausts Python's stack
# soon after 100 levels; 256 operands in each of 16 levels make 48 levels this way.
_WIDTH = 8
MATCH_ALL = "chunk >= 0"
MATCH_NONE = "chunk < 0"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
# Servers split a path at "][" and compare names in their JSON form, with escapes.
_NOT_IN_NAMES = frozenset("\"'\\[]")
_INT64_MIN = -(1 << 63)
_SIGNS = {"equal": "==", "greater_equal": ">=", "greater": ">", "less_equal": "<=", "less": "<"}


def filter_expression(
    filter: Filter, kinds: Mapping[str, str], single_valued: frozenset[str]
) -> str:
    """Returns the Milvus expression of a filter; it matches what `nearline.filters.admits` admits.

    Args:
        filter: The filter.
        kinds: Kinds of the attributes by name: string, int, double, bool or time.
        single_valued: Attributes that have no list in any document.
    Returns: An expression of at most MAX_EXPRESSION_BYTES; put it in parentheses to combine it.
    Raises: InvalidRequest: The filter names an unknown attribute, or a value has the wrong kind.
        Unsupported: The filter has a range over lists or a name that no path can express, or the
        expression is too long.
    """
    check_kinds(filter, kinds)
    written = _FilterWriter(kinds, single_valued).write(filter, exact=False)
    size = len(written.encode())
    if size > MAX_EXPRESSION_BYTES:
        raise Unsupported(
            f"the filter takes {size:,} bytes as a Milvus expression; {MAX_EXPRESSION_BYTES:,} are "
            "allowed. Use fewer or shorter values",
            field="options.filter",
        )
    return written


def quote(text: str) -> str:
    r"""Returns a text as a Milvus string literal.

    >>> quote('say "no"')
    '"say \\"no\\""'
    """
    return f'"{text.translate(_ESCAPES)}"'


def any_of(field: str, values: Sequence[str] | Sequence[int]) -> str:
    """Returns an expression for a column with one of these values; without values, nothing matches.

    >>> any_of("document", ["a", "b"])
    'document in ["a", "b"]'
    """
    if not values:
        return MATCH_NONE
    written = (quote(one) if isinstance(one, str) else str(one) for one in values)
    return f"{field} in [{', '.join(written)}]"


class _FilterWriter:
    """Translates one filter."""

    def __init__(self, kinds: Mapping[str, str], single_valued: frozenset[str]) -> None:
        self._kinds = kinds
        self._single_valued = single_valued

    def write(self, filter: Filter, *, exact: bool) -> str:
        """Returns the expression of a part of the filter.

        Args:
            filter: The part.
            exact: Whether the part is negated, so that it must be false rather than unknown for a
                missing attribute.
        """
        match filter:
            case f.All(parts):
                return _join([self.write(part, exact=exact) for part in parts], "and", MATCH_ALL)
            case f.Any(parts):
                return _join([self.write(part, exact=exact) for part in parts], "or", MATCH_NONE)
            case f.Not(part):
                return f"(not ({self.write(part, exact=True)}))"
            case f.Exists(field):
                return f"(exists {_path(field)})"
            case f.Words() | f.Phrase():
                raise Unsupported(
                    "the collection is served by Milvus, which has no conditions on title and text "
                    "(words, phrases, -word in a query); leave them out, or set "
                    "options.plain_text for a query",
                    field="options.filter",
                )
        path = _path(filter.field)
        match filter:
            case f.Range():
                met = self._range(filter, path)
            case f.Equals(_, value):
                met = self._membership(filter.field, path, (value,))
            case f.In(_, values):
                met = self._membership(filter.field, path, values)
        if not exact or met == MATCH_NONE:
            return met
        return _join([f"(exists {path})", met], "and", MATCH_ALL)

    def _range(self, condition: f.Range, path: str) -> str:
        field, kind = condition.field, self._kinds[condition.field]
        if field not in self._single_valued:
            raise Unsupported(
                f"attribute {field!r} has lists, and Milvus has no range over their elements; "
                "filter by values with IN, or store the minimum and maximum as separate attributes",
                field="options.filter",
            )
        bounds = bounds_of(condition, kind)
        if bounds is None:
            return MATCH_NONE
        compared = [_comparison(path, bound) for bound in bounds]
        # If no bound is left, any value matches.
        return _join(compared or [f"(exists {path})"], "and", MATCH_ALL)

    def _membership(self, field: str, path: str, values: Sequence[FilterValue]) -> str:
        wanted = list(dict.fromkeys(equal_values(values, self._kinds[field])))
        if not wanted:
            return MATCH_NONE
        single = field in self._single_valued
        equal = [_equal(path, value) for value in wanted]
        if single:
            return _join(equal, "or", MATCH_NONE)
        if self._kinds[field] == "int" and _INT64_MIN in wanted:
            raise Unsupported(
                f"attribute {field!r} has lists, and Milvus cannot look for {_INT64_MIN} in one; "
                "remove that value from the filter",
                field="options.filter",
            )
        listed = ", ".join(map(_literal, wanted))
        contained = f"json_contains_any({path}, [{listed}])"
        if self._kinds[field] == "string":
            # A text that only looks like a list has no element 0.
            contained = f"((exists {path}[0]) and {contained})"
        return _join([*equal, contained], "or", MATCH_NONE)


def _join(parts: Sequence[str], operator: str, none: str) -> str:
    """Combines parts in a wide, shallow tree; returns `none` if there are no parts."""
    if not parts:
        return none
    while len(parts) > 1:
        groups = [parts[at : at + _WIDTH] for at in range(0, len(parts), _WIDTH)]
        parts = [
            group[0] if len(group) == 1 else f"({f' {operator} '.join(group)})" for group in groups
        ]
    return parts[0]


def _path(name: str) -> str:
    if not _NOT_IN_NAMES.isdisjoint(name) or not name.isprintable():
        raise Unsupported(
            f"the name of attribute {name!r} has a character that Milvus does not allow in a path "
            "(a quote, a backslash, a bracket or a non-printable one); rename it and build again",
            field="options.filter",
        )
    return f"attributes[{quote(name)}]"


def _equal(path: str, value: FilterValue) -> str:
    return _comparison(path, Bound("equal", value))


def _comparison(path: str, bound: Bound) -> str:
    sign = _SIGNS[bound.comparison]
    value = bound.value
    if isinstance(value, int) and value == _INT64_MIN:
        # Milvus parses the digits before the sign, and 2^63 overflows.
        if sign == "<":
            return MATCH_NONE
        if sign == ">=":
            return f"(exists {path})"
        sign, value = {">": ">=", "==": "<", "<=": "<"}[sign], value + 1
    return f"{path} {sign} {_literal(value)}"


def _literal(value: FilterValue) -> str:
    match value:
        case str():
            return quote(value)
        case bool():
            return "true" if value else "false"
        case datetime():
            return str(to_us(value))
    return repr(value)
