"""How much a word counts in lexical search, by the field that it is in."""

from __future__ import annotations

from collections.abc import Mapping

from nearline.errors import InvalidRequest
from nearline.items.attributes import LIST

# Fields that are searched in any case; all others are attributes.
TITLE, TEXT = "title", "text"
MAX_SEARCH_FIELDS = 32
# Scores of smaller weights would be 0 in float32.
MIN_SEARCH_WEIGHT = 0.001
MAX_SEARCH_WEIGHT = 100
_MAX_NAME = 256
_FIELD = "search_weights"


def check_search_weights(weights: Mapping[str, float], kinds: Mapping[str, str]) -> None:
    """Checks the weights of the searchable fields.

    An attribute need not be declared, since items may have others. A declared one must be a string,
    because only texts have words.

    Args:
        weights: By field: "title", "text", and attributes.
        kinds: Declared kinds of attributes, by name; "string[]" for lists.
    Raises: InvalidRequest: there are too many fields, or one cannot be searched, or its weight is
        out of range.
    """
    if len(weights) > MAX_SEARCH_FIELDS:
        raise InvalidRequest(
            f"{len(weights)} fields have a search weight; at most {MAX_SEARCH_FIELDS} are allowed",
            field=_FIELD,
        )
    for name, weight in weights.items():
        if not 0 < len(name) <= _MAX_NAME:
            raise InvalidRequest(
                f"a search weight is for {name[:200]!r}; use title, text, or the name of an "
                f"attribute, which has 1..{_MAX_NAME} characters",
                field=_FIELD,
            )
        if not MIN_SEARCH_WEIGHT <= weight <= MAX_SEARCH_WEIGHT:
            remedy = "" if weight or name in (TITLE, TEXT) else ": leave out what is not searched"
            raise InvalidRequest(
                f"the search weight of {name!r} is {weight:g}; {MIN_SEARCH_WEIGHT} to "
                f"{MAX_SEARCH_WEIGHT} is allowed{remedy}",
                field=_FIELD,
            )
        kind = "string" if name in (TITLE, TEXT) else kinds.get(name, "string")
        if kind.removesuffix(LIST) != "string":
            raise InvalidRequest(
                f"attribute {name!r} has a search weight, but is declared of kind {kind}; only "
                "texts have words. Declare it a string, or leave out its weight",
                field=_FIELD,
            )


def parse_search_weight(text: str) -> tuple[str, float]:
    """Returns the field and the weight of a text like "genres=0.5"; a name may have "=" in it.

    Raises: InvalidRequest: it has another form.
    """
    name, _, weight = text.rpartition("=")
    try:
        return name.strip(), float(weight)
    except ValueError as error:
        raise InvalidRequest(
            f"{text[:200]!r} is not FIELD=WEIGHT, for example title=2 or genres=0.5", field=_FIELD
        ) from error


def shown_weights(weights: Mapping[str, float]) -> str:
    """Returns weights as text: titles and texts first, for example "title=2, genres=0.5"."""
    names = sorted(weights, key=lambda name: (name != TITLE, name != TEXT, name))
    return ", ".join(f"{name}={weights[name]:g}" for name in names)
