"""Documents and filters of LangChain as Nearline has them, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import uuid4

from nearline import contract as c, filters as f
from nearline.clients.arguments import converter
from nearline.errors import InvalidRequest
from nearline.integrations.extras import missing_extra
from nearline.integrations.metadata import COMPARISONS, one_of
from nearline.integrations.stored_documents import StoredDocument

try:
    from langchain_core.documents import Document
except ImportError as error:
    raise missing_extra("langchain", error) from error

LangChainFilter: TypeAlias = f.Filter | str | Mapping[str, Any]

_to_filter: Final = converter(c.FilterLike, "filter")
_CONDITIONS: Final = {"equals", "in", "exists", *f.BOUNDS}
_OPERATORS: Final[Mapping[str, Callable[[str, Any], f.Filter]]] = {
    **{f"${name}": compare for name, compare in COMPARISONS.items()},
    "$exists": lambda field, value: f.Exists(field) if value else f.Not(f.Exists(field)),
}


def read_filter(given: LangChainFilter | None) -> f.Filter | None:
    """Returns a filter: a text, a dict or records of Nearline, or a dict of metadata.

    Raises: InvalidRequest: it cannot be read; names the place.
    """
    if given is None:
        return None
    if isinstance(given, Mapping) and not _is_ours(given):
        condition = _read(given, "filter", f.MAX_DEPTH)
    else:
        condition = given  # type: ignore[assignment]
    read: f.Filter = _to_filter(condition)
    return read


def _is_ours(given: Mapping[str, Any]) -> bool:
    keys = set(given)
    if len(keys) == 1 and keys <= {"all", "any"}:
        return isinstance(next(iter(given.values())), list)
    if keys == {"not"}:
        return isinstance(given["not"], Mapping)
    return isinstance(given.get("field"), str) and bool(keys & _CONDITIONS)


def _read(given: Any, path: str, depth: int) -> f.Filter:
    if not isinstance(given, Mapping) or not depth:
        raise InvalidRequest(
            f"{path} is {str(given)[:200]!r}; a dict of metadata is needed, at most "
            f"{f.MAX_DEPTH} deep",
            field=path,
        )
    parts = [_entry(str(name), value, f"{path}.{name}", depth) for name, value in given.items()]
    return parts[0] if len(parts) == 1 else f.All(*parts)


def _entry(name: str, value: Any, path: str, depth: int) -> f.Filter:
    if name in ("$and", "$or"):
        if not isinstance(value, list | tuple):
            raise InvalidRequest(f"{path[:200]} is no list; a list of dicts is needed", field=path)
        parts = [_read(one, f"{path}[{at}]", depth - 1) for at, one in enumerate(value)]
        return f.All(*parts) if name == "$and" else f.Any(*parts)
    if name == "$not":
        return f.Not(_read(value, path, depth - 1))
    if name.startswith("$"):
        raise InvalidRequest(f"{path[:200]} is no operator; use $and, $or or $not", field=path)
    if not isinstance(value, Mapping):
        return one_of(name, value) if isinstance(value, list | tuple) else f.Equals(name, value)
    unknown = set(value) - set(_OPERATORS)
    if unknown or not value:
        raise InvalidRequest(
            f"{path[:200]} has the operators {sorted(map(str, unknown))}; use "
            f"{', '.join(_OPERATORS)}",
            field=path,
        )
    parts = [_OPERATORS[operator](name, operand) for operator, operand in value.items()]
    return parts[0] if len(parts) == 1 else f.All(*parts)


def stored_texts(
    texts: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
    vectors: Sequence[Sequence[float]] | None,
) -> list[StoredDocument]:
    count = len(texts)
    for name, given in (("metadatas", metadatas), ("ids", ids), ("embeddings", vectors)):
        if given is not None and len(given) != count:
            raise InvalidRequest(
                f"{name} has {len(given)} entries for {count} texts; one is needed for each text",
                field=name,
            )
    return [
        StoredDocument(
            id=(ids[at] if ids is not None else None) or str(uuid4()),
            text=text,
            metadata={} if metadatas is None else metadatas[at],
            vector=None if vectors is None else vectors[at],
        )
        for at, text in enumerate(texts)
    ]


def to_langchain(found: StoredDocument) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=dict(found.metadata))


def with_scores(documents: Iterable[StoredDocument]) -> list[tuple[Document, float]]:
    return [(to_langchain(one), one.score) for one in documents]


def diverse(lambda_mult: float) -> c.SearchOptions:
    return c.SearchOptions(diversity=1.0 - lambda_mult)
