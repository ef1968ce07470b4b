"""The properties of a new collection: the request, completed with defaults and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nearline.contract import EmbedderInfo
from nearline.errors import InvalidRequest
from nearline.items.search_languages import check_search_languages
from nearline.items.search_weights import check_search_weights
from nearline.store.snapshot import KIND_NAMES
from nearline.v1 import admin_pb2, snapshot_pb2
from nearline.wire.limits import LIMITS, check_count, check_range
from retrieval.embedders.endpoints import Embedders
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.synonym_rules import SynonymRule, check_synonyms, parse_synonyms
from retrieval.index.lexical.text_analysis import LANGUAGES
from retrieval.protocols.snapshot import COSINE

_METRICS = (COSINE, "inner_product")
_LANGUAGE = "english"
_MAX_SHARDS = int(LIMITS["CreateCollectionRequest.shards"].most)
_MAX_NAME = int(LIMITS["AttributeField.name"].most)
# The defaults of a build.
_CHUNK_TOKENS, _OVERLAP_SENTENCES = 240, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionLimits:
    """Limits and defaults of new collections.

    collections: Most collections of the store. servers: Shards that there are servers for; 0 if
    shards run in this process. poll_s: Seconds between two reads of the aliases by any router.
    """

    collections: int
    servers: int
    poll_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionShape:
    """The properties of a new collection.

    dim: Numbers in a vector. metric: "cosine" or "inner_product". shards: Number of shards.
    language: Of stemmer and stop words. chunk_tokens, overlap_sentences: How documents are cut; 0
    tokens: not at all. fields: Attributes to filter on. search_weights: Weight of each field in
    lexical search, by name; see `check_search_weights`. search_languages: Language of attributes
    that have another one, by name. synonyms: Of words of queries. embedder: None if the user brings
    vectors.
    """

    dim: int
    metric: str
    shards: int
    language: str
    chunk_tokens: int
    overlap_sentences: int
    fields: Sequence[snapshot_pb2.AttributeField]
    search_weights: Mapping[str, float]
    search_languages: Mapping[str, str]
    synonyms: Sequence[SynonymRule] = ()
    embedder: EmbedderInfo | None


async def shape_of(
    request: admin_pb2.CreateCollectionRequest,
    embedders: Embedders | None,
    limits: CollectionLimits,
) -> CollectionShape:
    """Completes and checks a request.

    Raises: InvalidRequest: An option is out of range; names it. NotReady, SnapshotMismatch: No
        embedding service has the model.
    """
    embedder = await _embedder_of(request, embedders)
    metric = request.metric or COSINE
    if metric not in _METRICS:
        raise _invalid("metric", request.metric, " or ".join(_METRICS))
    if embedder is not None and metric != COSINE:
        raise InvalidRequest(
            f"metric is {metric}, but vectors of {embedder.model} have unit length; use {COSINE}",
            field="metric",
        )
    most_shards = limits.servers or _MAX_SHARDS
    shards = request.shards or limits.servers or 1
    if shards > most_shards:
        servers = f"1..{most_shards}" + (
            " (as many as there are servers)" if limits.servers else ""
        )
        raise _invalid("shards", shards, servers)
    chunk_tokens = request.chunk_tokens or _CHUNK_TOKENS
    if embedder is not None and request.chunk_tokens > embedder.max_tokens:
        raise _invalid("chunk_tokens", chunk_tokens, f"0..{embedder.max_tokens}")
    fields = _fields_of(request)
    search_weights = dict(request.search_weights)
    check_search_weights(search_weights, {one.name: KIND_NAMES[one.kind] for one in fields})
    search_languages = dict(request.search_languages)
    check_search_languages(search_languages, search_weights, LANGUAGES)
    language = request.language or _LANGUAGE
    return CollectionShape(
        dim=request.dim if embedder is None else embedder.dim,
        metric=metric,
        shards=shards,
        language=language,
        chunk_tokens=0 if embedder is None else min(chunk_tokens, embedder.max_tokens),
        overlap_sentences=_OVERLAP_SENTENCES,
        fields=fields,
        search_weights=search_weights,
        search_languages=search_languages,
        synonyms=await asyncio.to_thread(_synonyms_of, request, language),
        embedder=embedder,
    )


async def _embedder_of(
    request: admin_pb2.CreateCollectionRequest, embedders: Embedders | None
) -> EmbedderInfo | None:
    """Returns the embedder; None if the caller brings vectors."""
    if request.dim and not request.fingerprint:
        check_range(request.dim, "dim", LIMITS["CreateCollectionRequest.dim"])
        return None
    known = {} if embedders is None else await embedders.infos()
    if not known:
        raise InvalidRequest(
            "no embedding service answers; start the router with --embedding HOST:PORT, or set dim "
            "to bring your own vectors",
            field="dim",
        )
    names = ", ".join(f"{one.fingerprint} ({one.model})" for one in known.values())
    fingerprint = request.fingerprint or (next(iter(known)) if len(known) == 1 else "")
    if fingerprint not in known:
        found = f"is {request.fingerprint[:200]!r}" if request.fingerprint else "is not set"
        raise InvalidRequest(f"fingerprint {found}; choose one of {names}", field="fingerprint")
    embedder = known[fingerprint]
    if request.dim not in (0, embedder.dim):
        raise _invalid("dim", request.dim, f"0 or {embedder.dim}, as {embedder.model} has it")
    return embedder


def _fields_of(request: admin_pb2.CreateCollectionRequest) -> list[snapshot_pb2.AttributeField]:
    fields = LIMITS["CreateCollectionRequest.attributes"]
    check_count(len(request.attributes), "attributes", fields)
    seen = set()
    for number, field in enumerate(request.attributes):
        where = f"attributes[{number}]"
        if not 0 < len(field.name) <= _MAX_NAME or field.name.startswith("$"):
            raise _invalid(
                f"{where}.name", repr(field.name[:200]), f"1..{_MAX_NAME} characters, not $"
            )
        if field.name in seen:
            raise InvalidRequest(f"{field.name!r} is there twice", field=f"{where}.name")
        if field.kind not in KIND_NAMES:
            raise _invalid(f"{where}.kind", field.kind, ", ".join(KIND_NAMES.values()))
        seen.add(field.name)
    return sorted(request.attributes, key=lambda field: field.name)


def _synonyms_of(
    request: admin_pb2.CreateCollectionRequest, language: str
) -> Sequence[SynonymRule]:
    """Returns the rules of a request; 200,000 synonyms take 2 s."""
    if not request.synonyms:
        return ()
    synonyms = parse_synonyms(request.synonyms)
    check_synonyms(synonyms, analyser_of(language))
    return synonyms.rules


def _invalid(field: str, found: object, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is {found}; {allowed} is allowed", field=field)
