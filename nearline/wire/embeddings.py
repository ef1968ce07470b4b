"""Embeddings, scores of pairs and the embedder's card: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from nearline import contract as c
from nearline.v1 import embedding_pb2, types_pb2
from nearline.vectors import pack, unpack
from nearline.wire.replies import fill_served_by, served_by_from_proto
from nearline.wire.values import duration, same_fields, seconds

_Reply: TypeAlias = (
    embedding_pb2.EmbedResponse | embedding_pb2.RerankResponse | embedding_pb2.EntailResponse
)


def embed_response(
    embeddings: c.Embeddings, dtype: types_pb2.DataType = types_pb2.DATA_TYPE_F32
) -> embedding_pb2.EmbedResponse:
    """Returns the message of embeddings."""
    message = embedding_pb2.EmbedResponse(
        vectors=pack(embeddings.vectors, dtype),
        fingerprint=embeddings.fingerprint,
        timings=embedding_pb2.EmbedTimings(
            tokenize=duration(embeddings.tokenize_s),
            queue=duration(embeddings.queue_s),
            inference=duration(embeddings.inference_s),
        ),
    )
    for tokens, truncated in zip(
        embeddings.tokens.tolist(), embeddings.truncated.tolist(), strict=True
    ):
        message.reports.add(tokens=tokens, truncated=truncated)
    _fill_fallback(message, embeddings.served_by)
    return message


def embeddings(message: embedding_pb2.EmbedResponse) -> c.Embeddings:
    """Returns the embeddings of a message."""
    times = message.timings
    return c.Embeddings(
        vectors=unpack(message.vectors),
        fingerprint=message.fingerprint,
        tokens=np.fromiter((r.tokens for r in message.reports), np.int64, len(message.reports)),
        truncated=np.fromiter(
            (r.truncated for r in message.reports), np.bool_, len(message.reports)
        ),
        tokenize_s=seconds(times.tokenize),
        queue_s=seconds(times.queue),
        inference_s=seconds(times.inference),
        served_by=_served_by(message),
    )


def rerank_response(scores: Sequence[float]) -> embedding_pb2.RerankResponse:
    """Returns the message of scores of a reranker."""
    message = embedding_pb2.RerankResponse(scores=scores)
    if isinstance(scores, c.RerankScores):
        message.fingerprint = scores.fingerprint
        _fill_fallback(message, scores.served_by)
    return message


def rerank_scores(message: embedding_pb2.RerankResponse) -> c.RerankScores:
    """Returns the scores of a message."""
    return c.RerankScores(message.scores, _served_by(message), message.fingerprint)


def entail_response(scores: c.EntailmentScores) -> embedding_pb2.EntailResponse:
    """Returns the message of entailment scores."""
    message = embedding_pb2.EntailResponse(
        entailment=scores.entailment,
        contradiction=scores.contradiction,
        fingerprint=scores.fingerprint,
    )
    _fill_fallback(message, scores.served_by)
    return message


def entailment_scores(message: embedding_pb2.EntailResponse) -> c.EntailmentScores:
    """Returns the entailment scores of a message."""
    return c.EntailmentScores(
        entailment=list(message.entailment),
        contradiction=list(message.contradiction),
        fingerprint=message.fingerprint,
        served_by=_served_by(message),
    )


def info_response(info: c.EmbedderInfo) -> embedding_pb2.GetInfoResponse:
    """Returns the message of an embedder's card."""
    return embedding_pb2.GetInfoResponse(**same_fields(info, c.EmbedderInfo))


def embedder_info(message: embedding_pb2.GetInfoResponse) -> c.EmbedderInfo:
    """Returns the embedder's card of a message."""
    return c.EmbedderInfo(**same_fields(message, c.EmbedderInfo))


def _fill_fallback(message: _Reply, served_by: c.ServedBy) -> None:
    """Fills the source of an answer if it is a fallback; otherwise it stays unset."""
    if served_by.source is c.Source.FALLBACK:
        fill_served_by(message.served_by, served_by)


def _served_by(message: _Reply) -> c.ServedBy:
    if not message.HasField("served_by"):
        return c.ServedBy()
    return served_by_from_proto(message.served_by)
