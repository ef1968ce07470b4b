"""The language of searchable attributes whose words are not those of the collection's language."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nearline.errors import InvalidRequest
from nearline.items.search_weights import MAX_SEARCH_FIELDS, TEXT, TITLE

_FIELD = "search_languages"
_SHOWN = 200


def check_search_languages(
    languages: Mapping[str, str], weights: Mapping[str, float] | None, known: Collection[str]
) -> None:
    """Checks the languages of searchable attributes.

    Args:
        languages: By attribute.
        weights: Weights of the searchable fields, see `check_search_weights`; None if they are not
            known yet.
        known: The languages that there are.
    Raises: InvalidRequest: there are too many, or a field can have no language of its own, or the
        language is unknown.
    """
    if len(languages) > MAX_SEARCH_FIELDS:
        raise InvalidRequest(
            f"{len(languages)} fields have a search language; at most {MAX_SEARCH_FIELDS} are "
            "allowed",
            field=_FIELD,
        )
    for name, language in languages.items():
        shown = repr(name)[:_SHOWN]
        if name in (TITLE, TEXT):
            raise InvalidRequest(
                f"{shown} has a search language, but title and text have the language of the "
                "collection; set that, or leave out this one",
                field=_FIELD,
            )
        if language not in known:
            raise InvalidRequest(
                f"the search language of {shown} is {repr(language)[:_SHOWN]}; use one of "
                f"{', '.join(known)}",
                field=_FIELD,
            )
        if weights is not None and name not in weights:
            raise InvalidRequest(
                f"attribute {shown} has a search language, but no search weight, so it is not "
                "searched; give it a weight, for example 1, or leave out its language",
                field=_FIELD,
            )


def parse_search_language(text: str) -> tuple[str, str]:
    """Returns the attribute and the language of a text like "brand=none"; a name may have "=".

    Raises: InvalidRequest: it has another form.
    """
    name, _, language = (part.strip() for part in text.rpartition("="))
    if not (name and language):
        raise InvalidRequest(
            f"{text[:_SHOWN]!r} is not FIELD=LANGUAGE, for example brand=none", field=_FIELD
        )
    return name, language


def other_languages(languages: Mapping[str, str], own: str) -> list[str]:
    """Returns the distinct languages of attributes but that of the collection, in order."""
    return sorted(set(languages.values()) - {own})


def shown_languages(languages: Mapping[str, str]) -> str:
    """Returns languages as text, by attribute: for example "brand=none, notes=german"."""
    return ", ".join(f"{name}={languages[name]}" for name in sorted(languages))
