"""Attributes as people declare them: which columns they are, and their kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypedDict

from nearline.errors import InvalidRequest
from nearline.items.attributes import KINDS, LIST
from nearline.store.snapshot import KIND_NAMES, kind_name
from nearline.v1 import snapshot_pb2

EVERY: Final = "*"
TITLE_ONLY_REMEDY: Final = "--allow-title-only accepts documents that have only a title"


class AttributeChoice(TypedDict):
    """Fields of `DocumentColumns`."""

    attributes: Sequence[str] | None
    also_attributes: Sequence[str]


def chosen_attributes(text: str) -> AttributeChoice:
    """Reads which columns are attributes: names separated by commas, * for all without a role."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if EVERY in names:
        others = tuple(name for name in names if name != EVERY)
        return {"attributes": None, "also_attributes": others}
    return {"attributes": tuple(names), "also_attributes": ()}


def declared_kinds(texts: Iterable[str]) -> dict[str, str]:
    """Reads declarations NAME:KIND; empty ones are left out. See `check_kinds`."""
    # A name may contain a colon, a kind never does.
    pairs = (part.strip().rpartition(":") for part in texts if part.strip())
    return {name.strip(): kind.strip() for name, _, kind in pairs}


def served_kinds(fields: Iterable[snapshot_pb2.AttributeField]) -> dict[str, str]:
    """Returns the kinds of those attributes of a collection that decide how a cell is read.

    What is a text there stays one although it looks like a list or a number, and what is a list
    there is split.
    """
    return {
        one.name: kind_name(one)
        for one in fields
        if one.is_list or KIND_NAMES[one.kind] == "string"
    }


def list_names(declared: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the attributes that are declared to be lists."""
    return tuple(name for name, kind in declared.items() if kind.endswith(LIST))


def check_kinds(declared: Mapping[str, str]) -> None:
    """Raises InvalidRequest if the kind of an attribute is unknown."""
    for name, kind in declared.items():
        if not name or kind.removesuffix(LIST) not in KINDS:
            raise InvalidRequest(
                f"attribute {name!r} is declared of kind {kind!r}; use NAME:KIND, where KIND is "
                f"one of {', '.join(KINDS)}, or string[] for lists of texts",
                field="attributes",
            )
