"""The cost of the same on CPUs, as docs/performance.md measured it on an AMD EPYC."""

from __future__ import annotations

import math

from nearline_cli.sizing.encoder import flop_per_token

# "Retrieval", "Where the time goes": a request takes 1,050 us of the two cores, its caller and idle
# time included, of which FAISS takes 270 in 49,000 vectors of 384 numbers (HNSW32, ef 64, recall@10
# 0.995).
_REQUEST_S = 1_050e-6
_GRAPH_S = 270e-6
_GRAPH_VECTORS = 49_000
_DIM = 384
# "Live recall": an exact search of 64 queries in the same vectors takes 36 ms of a core.
_EXACT_S_PER_NUMBER = 36e-3 / 64 / (_GRAPH_VECTORS * _DIM)
# docs/reference/settings.md, token_budget: 512 tokens of MiniLM-L6 take about 30 ms of a core.
_TOKENS_PER_S = 512 / 30e-3
_MINILM = (6, 384)
_LINKS = 32


def graph_bytes(vectors: float, dim: int) -> float:
    """Returns the bytes of an HNSW32 index of fp32 vectors.

    Source: docs/guides/index-types.md, 1,808 for each vector of 384 numbers: 4 for each number, 64
    links of 4 in the lowest level, and 16 for the upper levels and offsets.
    """
    return vectors * (4 * dim + 8 * _LINKS + 16)


def request_cores(queries: float) -> float:
    """Returns the cores that requests take apart from the search, wherever that runs.

    Source: docs/performance.md, "Where the time goes".
    """
    return queries * (_REQUEST_S - _GRAPH_S)


def graph_cores(vectors: float, dim: int, queries: float) -> float:
    """Returns the cores that search an HNSW32 index, requests included.

    Source: docs/performance.md, "Where the time goes". The search grows with the logarithm of the
    number of vectors (Malkov and Yashunin, 2016) and with their dimensions. That a large graph is
    in no cache is left out.
    """
    growth = math.log(max(vectors, 2)) / math.log(_GRAPH_VECTORS) * dim / _DIM
    return request_cores(queries) + queries * _GRAPH_S * growth


def exact_cores(vectors: float, dim: int, queries: float) -> float:
    """Returns the cores of an exact search in batches of 64, requests included.

    Source: docs/performance.md, "Live recall".
    """
    return request_cores(queries) + queries * vectors * dim * _EXACT_S_PER_NUMBER


def encoder_cores(texts: float, tokens: float, layers: int, width: int) -> float:
    """Returns the cores that embed texts.

    Source: docs/reference/settings.md, token_budget; other models by their operations per token.
    """
    size = flop_per_token(layers, width, tokens) / flop_per_token(*_MINILM, tokens)
    return texts * tokens * size / _TOKENS_PER_S
