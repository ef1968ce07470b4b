"""Filters over items: `All(Equals("kind", "class"), Range("year", gte=2000), Phrase("new york"))`.

Filters are immutable and hashable, so they can be cache keys; the keys of True, 1 and 1.0 differ. A
condition on a list is true when any element makes it true; a range is true when one element lies
within all its bounds. An item without the attribute (or with null) fails every condition except
`Not`, which is true whenever its part is false. Numbers compare by value: 2 equals 2.0. `Words` and
`Phrase` are conditions on title and text, which need a lexical index.

To add an operator, follow it from here to the shards; mypy points to most of these places:

- the record in `conditions.py`, in `Filter`, `admits` and `conditions`, and in `checks.py`;
- `nearline/filter_text.py` (the language) and `proto/nearline/v1/types.proto` with
  `nearline/wire/filters.py` (the wire);
- `retrieval/index/filtering/validation.py` (types of values) and `attribute_table.py` (the test of
  a column), `retrieval/index/text_conditions.py` (tests of texts), `retrieval/milvus/filters.py`;
- `retrieval/monitoring/filter_shape.py` (a label of metrics) and `docs/guides/filters.md`.
"""

from __future__ import annotations

from nearline.filters.checks import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_PARTS,
    MAX_TEXT_CHARACTERS,
    MAX_VALUES,
    MAX_WORDS,
    FilterSize,
    check_filter,
    kind_of,
)
from nearline.filters.conditions import (
    BOUNDS,
    All,
    Any,
    AttributeCondition,
    Equals,
    Exists,
    Filter,
    FilterValue,
    In,
    Not,
    Phrase,
    Range,
    Reference,
    TextCondition,
    Words,
    admits,
    both,
    conditions,
    text_conditions,
)

__all__ = [
    "BOUNDS",
    "MAX_CONDITIONS",
    "MAX_DEPTH",
    "MAX_PARTS",
    "MAX_TEXT_CHARACTERS",
    "MAX_VALUES",
    "MAX_WORDS",
    "All",
    "Any",
    "AttributeCondition",
    "Equals",
    "Exists",
    "Filter",
    "FilterSize",
    "FilterValue",
    "In",
    "Not",
    "Phrase",
    "Range",
    "Reference",
    "TextCondition",
    "Words",
    "admits",
    "both",
    "check_filter",
    "conditions",
    "kind_of",
    "text_conditions",
]
