"""Schemas and indexes of the Milvus collections; only the client imports this module."""

from __future__ import annotations

from typing import Any, NamedTuple

from pymilvus import DataType, Function, FunctionType, MilvusClient

from retrieval.milvus.layout import MAX_KEY_BYTES, MAX_TEXT_BYTES

# Field that BM25 computes from `analysed`.
WORDS = "words"
_HNSW = {"M": 32, "efConstruction": 200}


class Bm25(NamedTuple):
    """Parameters of BM25; see LexicalCard in snapshot.proto."""

    k1: float
    b: float


def chunk_schema(dim: int, *, words: bool, lite: bool) -> Any:
    """Returns the schema of a collection with a row per chunk; see `layout` for its fields.

    Args:
        dim: Dimension of the vectors.
        words: Whether to add the fields of lexical search.
        lite: Whether the server is Milvus Lite, which has no whitespace tokenizer.
    """
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, max_length=MAX_KEY_BYTES, is_primary=True)
    schema.add_field("document", DataType.VARCHAR, max_length=MAX_KEY_BYTES)
    for name in ("chunk", "start", "stop", "version", "expires"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("title", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    for name in ("gap", "passage", "rest"):
        schema.add_field(name, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    schema.add_field("attributes", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    if words:
        schema.add_field(
            "analysed",
            DataType.VARCHAR,
            max_length=MAX_TEXT_BYTES,
            enable_analyzer=True,
            analyzer_params={"tokenizer": "standard" if lite else "whitespace"},
        )
        schema.add_field(WORDS, DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["analysed"],
                output_field_names=[WORDS],
            )
        )
    return schema


def chunk_indexes(metric: str, index: str, bm25: Bm25 | None, *, lite: bool) -> Any:
    """Returns the indexes of a collection with a row per chunk.

    Args:
        metric: IP or L2.
        index: HNSW or FLAT.
        bm25: Optional; None omits the index of lexical search.
        lite: Whether the server is Milvus Lite, which indexes texts by INVERTED; servers before 2.4
            have only Trie.
    """
    indexes = MilvusClient.prepare_index_params()
    params = _HNSW if index == "HNSW" else {}
    indexes.add_index("vector", index_type=index, metric_type=metric, params=params)
    indexes.add_index("document", index_type="INVERTED" if lite else "Trie")
    if bm25 is not None:
        indexes.add_index(
            WORDS,
            index_type="SPARSE_INVERTED_INDEX",
            metric_type="BM25",
            params={"bm25_k1": bm25.k1, "bm25_b": bm25.b},
        )
    return indexes


def state_schema() -> Any:
    """Returns the schema of the table of states, which has a row per Nearline collection."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, max_length=MAX_KEY_BYTES, is_primary=True)
    schema.add_field("state", DataType.JSON)
    # Every Milvus collection needs a vector field.
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    return schema


def state_indexes() -> Any:
    """Returns the indexes of the table of states."""
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    return indexes
