"""Documents and filters of Haystack as Nearline has them, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from nearline import filters as f
from nearline.errors import InvalidRequest
from nearline.integrations.extras import missing_extra
from nearline.integrations.metadata import iso_time, one_of
from nearline.integrations.stored_documents import StoredDocument

try:
    from haystack.dataclasses import ByteStream, Document, SparseEmbedding
    from haystack.errors import FilterError
except ImportError as error:
    raise missing_extra("haystack", error) from error

_RECORD: Final = "$haystack"
_FIELDS: Final = frozenset({"id", "content", "blob", "score", "embedding", "sparse_embedding"})


def to_stored(document: Document) -> StoredDocument:
    """Returns a document as it is stored; a record holds what an item has no place for."""
    record = None
    if document.content is None or document.blob is not None or document.sparse_embedding:
        blob, sparse = document.blob, document.sparse_embedding
        record = {
            "meta": document.meta,
            "content": document.content is not None,
            "blob": blob and {"data": blob.data, "meta": blob.meta, "mime_type": blob.mime_type},
            "sparse_embedding": sparse and sparse.to_dict(),
        }
    return StoredDocument(
        id=document.id,
        text=document.content or "",
        metadata=document.meta,
        vector=document.embedding,
        record=None if record is None else {_RECORD: record},
    )


def to_haystack(stored: StoredDocument, *, scored: bool = False) -> Document:
    """Returns a stored document. scored: Whether it has the score of a search."""
    record = stored.metadata.get(_RECORD, {"meta": stored.metadata, "content": True})
    blob, sparse = record.get("blob"), record.get("sparse_embedding")
    return Document(
        id=stored.id,
        content=stored.text if record["content"] else None,
        blob=ByteStream(**blob) if blob else None,
        meta=dict(record["meta"]),
        score=stored.score if scored else None,
        embedding=None if stored.vector is None else [float(one) for one in stored.vector],
        sparse_embedding=SparseEmbedding.from_dict(sparse) if sparse else None,
    )


def read_filters(filters: Mapping[str, Any] | None) -> f.Filter | None:
    """Returns the filter that Haystack's filters stand for; None without any.

    Raises: FilterError: they cannot be read, or compare with something that has no order.
    """
    if not filters:
        return None
    return _read(filters, "filters", f.MAX_DEPTH)


@contextlib.contextmanager
def filter_errors() -> Iterator[None]:
    """Turns the errors of filters that Nearline refuses into Haystack's."""
    try:
        yield
    except InvalidRequest as error:
        if "filter" not in error.field:
            raise
        raise FilterError(str(error)) from error


def _read(filters: Any, path: str, depth: int) -> f.Filter:
    if not isinstance(filters, Mapping) or not depth:
        raise FilterError(
            f"{path[:200]} is {str(filters)[:200]!r}; a dict is needed, at most {f.MAX_DEPTH} deep"
        )
    if "field" in filters:
        return _comparison(filters, path)
    for key in ("operator", "conditions"):
        if key not in filters:
            raise FilterError(f"{path[:200]} has no {key!r}: {str(filters)[:200]}")
    conditions = filters["conditions"]
    if not isinstance(conditions, list):
        raise FilterError(f"{path[:200]}.conditions is no list")
    parts = [_read(one, f"{path}.conditions[{at}]", depth - 1) for at, one in enumerate(conditions)]
    match filters["operator"]:
        case "AND":
            return f.All(*parts)
        case "OR":
            return f.Any(*parts)
        case "NOT":
            return f.Not(f.All(*parts))
    raise FilterError(
        f"{path[:200]}.operator is {str(filters['operator'])[:200]!r}; use AND, OR or NOT"
    )


def _comparison(filters: Mapping[str, Any], path: str) -> f.Filter:
    for key in ("operator", "value"):
        if key not in filters:
            raise FilterError(f"{path[:200]} has no {key!r}: {str(filters)[:200]}")
    field = str(filters["field"])
    if field in _FIELDS:
        raise FilterError(
            f"{path[:200]}.field is {field!r}; filters know metadata alone, such as 'meta.lang'"
        )
    compare = _OPERATORS.get(filters["operator"])
    if compare is None:
        raise FilterError(
            f"{path[:200]}.operator is {str(filters['operator'])[:200]!r}; use "
            f"{', '.join(_OPERATORS)}"
        )
    return compare(field.removeprefix("meta."), filters["value"])


def _equal(field: str, value: Any) -> f.Filter:
    if isinstance(value, list | tuple | dict):
        raise FilterError(f"{field[:200]} is compared with {str(value)[:200]}; use 'in' for lists")
    return f.Not(f.Exists(field)) if value is None else f.Equals(field, value)


def _bound(name: str) -> Callable[[str, Any], f.Filter]:
    def compare(field: str, value: Any) -> f.Filter:
        if value is None:
            # As in Haystack, nothing is larger or smaller than None.
            return f.Any()
        if isinstance(value, list | tuple | dict | bool):
            raise FilterError(f"{field[:200]} cannot be larger or smaller than {str(value)[:200]}")
        if isinstance(value, str) and iso_time(value) is None:
            raise FilterError(
                f"{field[:200]} cannot be larger or smaller than the text {value[:200]!r}; only "
                "numbers and ISO 8601 dates have an order"
            )
        return f.Range(field, **{name: value})

    return compare


def _in(field: str, value: Any) -> f.Filter:
    if not isinstance(value, list):
        raise FilterError(f"{field[:200]} is compared with {str(value)[:200]}; a list is needed")
    found = one_of(field, [one for one in value if one is not None])
    return f.Any(found, f.Not(f.Exists(field))) if None in value else found


_OPERATORS: Final[Mapping[str, Callable[[str, Any], f.Filter]]] = {
    "==": _equal,
    "!=": lambda field, value: f.Not(_equal(field, value)),
    ">": _bound("gt"),
    ">=": _bound("gte"),
    "<": _bound("lt"),
    "<=": _bound("lte"),
    "in": _in,
    "not in": lambda field, value: f.Not(_in(field, value)),
}
