"""Nodes, filters and queries of LlamaIndex as Nearline has them, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nearline import contract as c, filters as f
from nearline.errors import InvalidRequest, Unsupported
from nearline.integrations.extras import missing_extra
from nearline.integrations.metadata import COMPARISONS, one_of
from nearline.integrations.stored_documents import StoredDocument

try:
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.vector_stores.types import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise missing_extra("llama-index", error) from error

# Attributes of every node: its own id, and that of the document that it is a part of.
NODE_ID: Final = "node_id"
REF_DOC_ID: Final = "ref_doc_id"
_NODE, _TYPE = "node", "type"
_DEFAULT_MMR: Final = 0.5

MODES: Final[Mapping[VectorStoreQueryMode, c.SearchMode]] = {
    VectorStoreQueryMode.DEFAULT: c.SearchMode.DENSE,
    VectorStoreQueryMode.MMR: c.SearchMode.DENSE,
    VectorStoreQueryMode.HYBRID: c.SearchMode.HYBRID,
    VectorStoreQueryMode.SEMANTIC_HYBRID: c.SearchMode.HYBRID,
    VectorStoreQueryMode.SPARSE: c.SearchMode.LEXICAL,
    VectorStoreQueryMode.TEXT_SEARCH: c.SearchMode.LEXICAL,
}
_OPERATORS: Final[Mapping[FilterOperator, Callable[[str, Any], f.Filter]]] = {
    **{FilterOperator[name.upper()]: compare for name, compare in COMPARISONS.items()},
    FilterOperator.ANY: one_of,
    FilterOperator.ALL: lambda key, value: f.All(*(f.Equals(key, one) for one in value)),
    FilterOperator.CONTAINS: f.Equals,
    FilterOperator.IS_EMPTY: lambda key, value: f.Not(f.Exists(key)),
}


def to_document(node: BaseNode) -> StoredDocument:
    """Returns a node as it is stored; all but its text and its embedding is the record."""
    flat = node_to_metadata_dict(node, remove_text=True)
    metadata = {**node.metadata, NODE_ID: node.node_id}
    if node.ref_doc_id is not None:
        metadata[REF_DOC_ID] = node.ref_doc_id
    return StoredDocument(
        id=node.node_id,
        text=node.get_content(metadata_mode=MetadataMode.NONE),
        metadata=metadata,
        vector=node.embedding,
        record={_NODE: json.loads(flat["_node_content"]), _TYPE: flat["_node_type"]},
    )


def to_node(document: StoredDocument) -> BaseNode:
    """Returns the node of a stored document.

    Raises: InvalidRequest: it was not written by this store.
    """
    if _NODE not in document.metadata:
        raise InvalidRequest(
            f"item {document.id[:200]!r} was not written by LlamaIndex; use a collection of its own"
        )
    flat = {
        "_node_content": json.dumps(document.metadata[_NODE]),
        "_node_type": document.metadata[_TYPE],
    }
    return metadata_dict_to_node(flat, text=document.text)


def to_result(documents: Sequence[StoredDocument]) -> VectorStoreQueryResult:
    """Returns found documents as the result of a query."""
    return VectorStoreQueryResult(
        nodes=[to_node(one) for one in documents],
        similarities=[one.score for one in documents],
        ids=[one.id for one in documents],
    )


def query_filter(query: VectorStoreQuery) -> f.Filter | None:
    """Returns which nodes a query may find."""
    condition = read_filters(query.filters)
    if query.doc_ids:
        condition = f.both(condition, one_of(REF_DOC_ID, query.doc_ids))
    # An index without nodes of its own sends an empty list.
    if query.node_ids:
        condition = f.both(condition, one_of(NODE_ID, query.node_ids))
    return condition


def query_options(query: VectorStoreQuery) -> tuple[c.SearchMode, c.SearchOptions]:
    """Returns the mode and the other options of a query.

    Raises: Unsupported: there is no such mode here.
    """
    if query.mode not in MODES:
        raise Unsupported(
            f"mode is {query.mode.value}; use {', '.join(mode.value for mode in MODES)}",
            field="mode",
        )
    options = c.SearchOptions(dense_weight=query.alpha)
    if query.mode is VectorStoreQueryMode.MMR:
        threshold = _DEFAULT_MMR if query.mmr_threshold is None else query.mmr_threshold
        options = c.SearchOptions(diversity=1.0 - threshold)
    elif MODES[query.mode] is not c.SearchMode.HYBRID:
        options = c.SearchOptions()
    return MODES[query.mode], options


def read_filters(filters: MetadataFilters | None) -> f.Filter | None:
    """Returns the filter that LlamaIndex's filters stand for; None without any.

    Raises: Unsupported: an operator has no equivalent. InvalidRequest: a value is missing.
    """
    if filters is None or not filters.filters:
        return None
    parts = [
        _condition(one) if isinstance(one, MetadataFilter) else read_filters(one) or f.All()
        for one in filters.filters
    ]
    match filters.condition:
        case FilterCondition.OR:
            return f.Any(*parts)
        case FilterCondition.NOT:
            return f.Not(f.Any(*parts))
    return parts[0] if len(parts) == 1 else f.All(*parts)


def _condition(one: MetadataFilter) -> f.Filter:
    build = _OPERATORS.get(one.operator)
    if build is None:
        raise Unsupported(
            f"the operator {one.operator.value!r} on {one.key[:200]!r} has no equivalent; search "
            "for words with mode text_search, or use one of "
            + ", ".join(operator.value for operator in _OPERATORS),
            field="filters",
        )
    if one.value is None and one.operator is not FilterOperator.IS_EMPTY:
        raise InvalidRequest(
            f"the filter on {one.key[:200]!r} has no value; use is_empty", field="filters"
        )
    several = one.operator in (
        FilterOperator.IN,
        FilterOperator.NIN,
        FilterOperator.ANY,
        FilterOperator.ALL,
    )
    if several and not isinstance(one.value, list):
        raise InvalidRequest(
            f"the filter on {one.key[:200]!r} has one value; {one.operator.value} needs a list",
            field="filters",
        )
    return build(one.key, one.value)
