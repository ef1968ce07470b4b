"""Embeddings, scores of pairs and the embedder's card: contract records to protobuf and back."""

from __future__ import annotations

import numpy as np

from nearline import contract as c
from nearline.v1 import embedding_pb2, types_pb2
from nearline.vectors import pack, unpack
from nearline.wire.values import duration, same_fields, seconds


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
    )


def entail_response(scores: c.EntailmentScores) -> embedding_pb2.EntailResponse:
    """Returns the message of entailment scores."""
    return embedding_pb2.EntailResponse(
        entailment=scores.entailment,
        contradiction=scores.contradiction,
        fingerprint=scores.fingerprint,
    )


def entailment_scores(message: embedding_pb2.EntailResponse) -> c.EntailmentScores:
    """Returns the entailment scores of a message."""
    return c.EntailmentScores(
        entailment=list(message.entailment),
        contradiction=list(message.contradiction),
        fingerprint=message.fingerprint,
    )


def info_response(info: c.EmbedderInfo) -> embedding_pb2.GetInfoResponse:
    """Returns the message of an embedder's card."""
    return embedding_pb2.GetInfoResponse(**same_fields(info, c.EmbedderInfo))


def embedder_info(message: embedding_pb2.GetInfoResponse) -> c.EmbedderInfo:
    """Returns the embedder's card of a message."""
    return c.EmbedderInfo(**same_fields(message, c.EmbedderInfo))
