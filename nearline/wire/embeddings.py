"""Embeddings, scores of pairs and the embedder's card: contract records to protobuf and back."""

from __future__ import annotations

import numpy as np

from nearline import contract as c
from nearline.v1 import embedding_pb2, types_pb2
from nearline.vectors import pack, unpack
from nearline.wire.values import duration, seconds


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
    return embedding_pb2.GetInfoResponse(
        model=info.model,
        fingerprint=info.fingerprint,
        dim=info.dim,
        max_tokens=info.max_tokens,
        max_texts=info.max_texts,
        max_characters=info.max_characters,
        max_queued_tokens=info.max_queued_tokens,
        backend=info.backend,
        min_cosine=info.min_cosine,
        tokens_per_second=info.tokens_per_second,
        query_prompt=info.query_prompt,
        document_prompt=info.document_prompt,
        reranker=info.reranker,
        reranker_fingerprint=info.reranker_fingerprint,
        entailment=info.entailment,
        entailment_fingerprint=info.entailment_fingerprint,
    )


def embedder_info(message: embedding_pb2.GetInfoResponse) -> c.EmbedderInfo:
    """Returns the embedder's card of a message."""
    return c.EmbedderInfo(
        model=message.model,
        fingerprint=message.fingerprint,
        dim=message.dim,
        max_tokens=message.max_tokens,
        max_texts=message.max_texts,
        max_characters=message.max_characters,
        max_queued_tokens=message.max_queued_tokens,
        backend=message.backend,
        min_cosine=message.min_cosine,
        tokens_per_second=message.tokens_per_second,
        query_prompt=message.query_prompt,
        document_prompt=message.document_prompt,
        reranker=message.reranker,
        reranker_fingerprint=message.reranker_fingerprint,
        entailment=message.entailment,
        entailment_fingerprint=message.entailment_fingerprint,
    )
