"""Every argument and every reply of every method of the contract crosses the wire whole.

Methods come from the protocols and fields from the descriptors, so new ones are included.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from google.protobuf.message import Message

from embedding.servicer import EmbeddingServicer
from generation.servicer import GenerationServicer
from index_builder.ingest.servicer import IngestServicer
from nearline import contract as c, wire
from nearline.access import method_guard
from nearline.access.caller import Caller
from nearline.clients import EmbeddingClient, GenerationClient, IngestClient, RetrievalClient
from nearline.internal.v1 import shard_pb2
from nearline.store.snapshot import shard_of
from nearline.v1 import embedding_pb2, generation_pb2, ingest_pb2, retrieval_pb2, types_pb2
from retrieval.live.progress import ShardProgress
from retrieval.protocols.candidates import HistoryRequest
from retrieval.protocols.shard import Shard, ShardQueries
from retrieval.router.servicer import RetrievalServicer
from retrieval.shards.client import ShardClient, ShardKey
from retrieval.shards.servicer import ShardServicer
from tests.nearline.wire.full_records import DIM, FullRecords, same
from tests.nearline.wire.loopback import (
    Loopback,
    RecordingService,
    all_fields,
    methods_of,
    set_fields,
    unset_fields,
)
from tests.retrieval.shards.test_candidates_codec import FOUND, REQUEST, STORED

CALLER = Caller("acme", ("staff",))


class Side(NamedTuple):
    """A client, the module of its messages and the name of its service."""

    client: Callable[[], Any]
    module: Any
    service: str
    servicer: Callable[[Any], Any]


RETRIEVAL = Side(
    lambda: RetrievalClient("127.0.0.1:1"),
    retrieval_pb2,
    "RetrievalService",
    lambda one: RetrievalServicer(one, one, one),
)
EMBEDDING = Side(
    lambda: EmbeddingClient("127.0.0.1:1"),
    embedding_pb2,
    "EmbeddingService",
    lambda one: EmbeddingServicer(lambda: one),
)
GENERATION = Side(
    lambda: GenerationClient("127.0.0.1:1"),
    generation_pb2,
    "GenerationService",
    GenerationServicer,
)
INGEST = Side(lambda: IngestClient("127.0.0.1:1"), ingest_pb2, "IngestService", IngestServicer)
PROTOCOLS: Mapping[type, Side] = {
    c.Retriever: RETRIEVAL,
    c.ItemWriter: RETRIEVAL,
    c.Recommender: RETRIEVAL,
    c.Embedder: EMBEDDING,
    c.Reranker: EMBEDDING,
    c.Entailment: EMBEDDING,
    c.Generator: GENERATION,
    c.Ingestor: INGEST,
}
# Streams of batches; those of items become calls of `upsert_items` and `delete_items`.
STREAMS = {"upsert_batches", "delete_batches", "import_interactions"}
METHODS = [
    (protocol, name)
    for protocol in PROTOCOLS
    for name in methods_of(protocol)
    if name not in STREAMS
]
# Clients in other languages ask for a number format. The watermark of a deletion is always empty. A
# reranker may return scores alone: test_round_trips.py has them with their source and model.
NOT_SENT = {
    "EmbedRequest.dtype",
    "Vectors.dtype",
    "DeleteUserResponse.watermark",
    "RerankResponse.served_by",
    "RerankResponse.fingerprint",
}
# Clients have values of their own for these.
CLIENTS_HAVE = {
    "timeout_s",
    "payload",
    "as_of",
    "page_size",
    "if_versions",
    "job_id",
    "idempotency_key",
}
# The servicer makes pages out of searches: tests/live/test_collection_contents.py.
PAGES = {"SearchRequest.page_token", "SearchResponse.next_page_token"}
# Options that the router applies, and what it adds to the answers of shards.
NOT_OF_SHARDS = {
    f"SearchOptions.{name}"
    for name in (
        *("require_full_coverage", "snapshot_id", "min_score", "diversity", "dense_weight"),
        *("unit", "plain_text", "highlight", "min_should_match", "rerank"),
        *("user_id", "session_id", "personal", "unrecorded"),
    )
} | {"FilterPlan.shard", "Term.idf"}


@contextlib.asynccontextmanager
async def joined(side: Side, service: object) -> AsyncIterator[tuple[Any, Loopback]]:
    client = side.client()
    loop = Loopback(side.module.DESCRIPTOR.services_by_name[side.service], side.servicer(service))
    client._stub = loop
    try:
        yield client, loop
    finally:
        await client.close()


async def called(protocol: type, name: str, *, least: bool = False) -> list[Message]:
    """Calls a method with full arguments and replies, and compares both; returns the messages."""
    full = FullRecords(least=least)
    service = RecordingService(full, *PROTOCOLS)
    method = methods_of(protocol)[name]
    hints = typing.get_type_hints(method)
    given = {
        key: full.of(hints[key], one.default)
        for key, one in list(inspect.signature(method).parameters.items())[1:]
    }
    async with joined(PROTOCOLS[protocol], service) as (client, loop):
        # As the guard of a server does.
        method_guard._call.set(method_guard._Call(CALLER))
        answer = getattr(client, name)(**given)
        received = [one async for one in answer] if hasattr(answer, "__aiter__") else [await answer]
    arrived, arguments = service.calls[0]
    assert arrived == name
    assert arguments.keys() == given.keys()
    for key, one in given.items():
        there = arguments[key]
        if least and hasattr(there, "payload"):
            there = replace(there, payload=one.payload)
        if least and key in CLIENTS_HAVE:
            continue
        assert same(one, frozenset(there) if isinstance(one, frozenset) else there), key
    if name == "search":
        # A single search has one list.
        service.replies[0] = replace(service.replies[0], results=service.replies[0].results[:1])
    assert all(map(same, service.replies[: len(received)], received)), name
    assert service.callers[0] in (None, CALLER)
    if protocol is c.Generator:
        assert service.callers[0] == CALLER
    return loop.messages


@pytest.mark.parametrize(("protocol", "name"), METHODS, ids=[name for _, name in METHODS])
async def test_no_argument_and_no_part_of_a_reply_is_lost(protocol: type, name: str) -> None:
    messages = await called(protocol, name)
    unset = {field for one in messages for field in unset_fields(one)}
    assert unset <= NOT_SENT | PAGES


@pytest.mark.parametrize(("protocol", "name"), METHODS, ids=[name for _, name in METHODS])
async def test_what_is_left_out_stays_out(protocol: type, name: str) -> None:
    await called(protocol, name, least=True)


# --- Streams ----------------------------------------------------------------------------------


async def streamed() -> list[Message]:
    """Sends two batches by each method that streams; returns the messages."""
    full = FullRecords()
    service = RecordingService(full, *PROTOCOLS)
    items = [[full.of(c.Item)], [full.of(c.Item), full.of(c.Item)]]
    ids = [[full.of(str)], [full.of(str)]]

    async def batches(parts: list[Any]) -> AsyncIterator[Any]:
        for one in parts:
            yield one

    async with joined(RETRIEVAL, _Writer(service)) as (client, loop):
        upserts = await client.upsert_batches(batches(items), collection="shop")
        deletes = await client.delete_batches(batches(ids), collection="shop")
    (_, first), (_, second), *rest = service.calls
    assert same([first["items"], second["items"]], items)
    assert [one["ids"] for _, one in rest] == ids
    assert {one["collection"] for _, one in service.calls} == {"shop"}
    assert upserts.counts[c.WriteOutcome.REJECTED] == deletes.counts[c.WriteOutcome.REJECTED] == 4
    assert len(upserts.rejections) == 4
    importer = _Importer(full)
    columns = [full.of(c.InteractionColumns), full.of(c.InteractionColumns)]
    async with joined(RETRIEVAL, importer) as (client, imports):
        reply = await client.import_interactions(
            batches(columns), import_id="past", first_row=1 << 40, collection="shop"
        )
    assert importer.seen == [
        columns,
        {"import_id": "past", "first_row": 1 << 40, "collection": "shop"},
    ]
    assert reply == importer.reply
    async with joined(EMBEDDING, _Embedder(full)) as (client, stream):
        texts = [["a", "b"], ["c"]]
        found = [
            one
            async for one in client.embed_stream(
                batches(texts), c.TextRole.QUERY, expected_fingerprint="f"
            )
        ]
    assert [one.fingerprint for one in found] == ["a b query f", "c query f"]
    bulk: list[tuple[Any, Any, set[c.WriteOutcome]]] = [
        (wire.upsert_stream_response, wire.upsert_stream_reply, set(c.WriteOutcome) - {DELETED}),
        (wire.delete_stream_response, wire.delete_stream_reply, {DELETED, ABSENT, REJECTED}),
    ]
    replies: list[Message] = []
    for to_proto, from_proto, outcomes in bulk:
        counts = {one: full.number() for one in outcomes}
        total = c.BulkWriteReply(watermark=b"w", counts=counts, rejections=[full.of(c.WriteResult)])
        replies.append(loop.crossed(to_proto(total)))
        assert same(from_proto(replies[-1]), total)
    return [*loop.messages, *imports.messages, *stream.messages, *replies]


DELETED, ABSENT = c.WriteOutcome.DELETED, c.WriteOutcome.ABSENT
REJECTED = c.WriteOutcome.REJECTED


class _Writer:
    """Writes nothing: rejects two items of each batch, with a watermark that can be decoded."""

    def __init__(self, service: RecordingService) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def write(*given: Any, **more: Any) -> c.WriteReply:
            reply: c.WriteReply = await getattr(self._service, name)(*given, **more)
            results = [replace(one, outcome=REJECTED) for one in reply.results]
            return replace(reply, results=results, watermark=b"")

        return write


class _Importer:
    def __init__(self, full: FullRecords) -> None:
        self.reply = full.of(c.ImportReply)
        self.seen: list[Any] = []

    async def import_interactions(self, batches: AsyncIterator[Any], **more: Any) -> c.ImportReply:
        self.seen = [[one async for one in batches], more]
        return cast(c.ImportReply, self.reply)


class _Embedder:
    def __init__(self, full: FullRecords) -> None:
        self._full = full

    async def embed_stream(self, calls: AsyncIterator[Any]) -> AsyncIterator[c.Embeddings]:
        async for one in calls:
            said = [*one.texts, one.role.value, one.expected_fingerprint]
            yield replace(self._full.of(c.Embeddings), fingerprint=" ".join(said))


async def test_streams_carry_every_batch_and_every_count() -> None:
    assert await streamed()


# --- Shards -----------------------------------------------------------------------------------

SHARD_METHODS = ("search", "fetch", "scan", "count", "suggest", "candidates", "history")


async def asked_of_shard(name: str) -> list[Message]:
    full = FullRecords()
    key = ShardKey("shop", "snapshot", 7)
    method = getattr(Shard, name)
    hints = typing.get_type_hints(method)
    given = [
        full.of(hints[one])
        for one in inspect.signature(method).parameters
        # What happens `then` stays in the process of the caller.
        if one not in ("self", "snapshot_id", "deadline", "also", "then")
    ]
    # Further shards that one call is about.
    also = [(4, 5)] if name == "candidates" else []
    if name == "candidates":
        given[0] = REQUEST
    if name == "history":
        users = (f"user {number}" for number in range(10_000))
        given[0] = HistoryRequest(next(one for one in users if shard_of(one, 64) == key.shard))
    if name == "search":
        given[0] = ShardQueries(np.stack([full.vector(), full.vector()]), ("one", "two"))
    if name == "fetch":
        given[0] = given[0]._replace(highlight=given[0].highlight._replace(queries=[[0, 1], [1]]))
    reply = typing.get_args(hints["return"])[0]
    answers: Any = {"candidates": FOUND, "history": STORED}.get(name) or full.of(reply)
    seen: list[Any] = []

    async def answer(*arguments: Any) -> Any:
        seen.extend(arguments)
        return answers

    manifest = SimpleNamespace(dim=DIM, shards=range(64))
    loaded = SimpleNamespace(
        shard=SimpleNamespace(**{name: answer}), snapshot=SimpleNamespace(manifest=manifest)
    )

    @contextlib.contextmanager
    def shards(*wanted: Any) -> Iterator[Mapping[int, Any]]:
        assert wanted in [tuple(key), *(tuple(key._replace(shard=one)) for one in (4, 5))]
        yield {key.shard: loaded}

    client = ShardClient("127.0.0.1:1")
    service = shard_pb2.DESCRIPTOR.services_by_name["ShardService"]
    loop = Loopback(service, ShardServicer(SimpleNamespace(shards=shards)))  # type: ignore[arg-type]
    client._stub = loop  # type: ignore[assignment]
    try:
        deadline = asyncio.get_running_loop().time() + 100
        received = await getattr(client, name)(key, *given, deadline, *also)
    finally:
        await client.close()
    sent = 1 + len(given)
    assert seen[0] == key.snapshot_id and abs(seen[sent] - deadline) < 50
    assert all(map(same, given, seen[1:sent])), seen
    assert [tuple(one) for one in seen[sent + 1 :]] == also
    if name == "search":
        # All hits have the oldest state among them, and plans do not name their shard.
        oldest = received[0].applied
        answers = [replace(one, applied=oldest) for one in answers]
    if name == "scan":
        # Only items that a search has found are highlighted.
        answers = answers._replace(highlights=())
    assert same(answers, received)
    return loop.messages


@pytest.mark.parametrize("name", SHARD_METHODS)
async def test_no_part_of_a_call_to_a_shard_is_lost(name: str) -> None:
    messages = await asked_of_shard(name)
    unset = {field for one in messages for field in unset_fields(one)}
    assert unset <= NOT_OF_SHARDS


class _Host:
    """Holds one shard, which is 5 changes behind; remembers what it was told to load and unload."""

    def __init__(self, progress: ShardProgress) -> None:
        self._progress = progress
        self.told: list[tuple[str, str, str]] = []

    def __iter__(self) -> Iterator[Any]:
        snapshot = SimpleNamespace(collection="shop", snapshot_id="s1")
        shard = SimpleNamespace(chunks=9)
        yield SimpleNamespace(snapshot=snapshot, number=7, shard=shard)

    def progress(self, loaded: object) -> ShardProgress:
        return self._progress

    async def load(self, collection: str, snapshot_id: str) -> None:
        self.told.append(("load", collection, snapshot_id))

    async def unload(self, collection: str, snapshot_id: str) -> None:
        self.told.append(("unload", collection, snapshot_id))


async def told_to_host() -> list[Message]:
    """Asks a shard server for its status, and lets it load and unload; returns the messages."""
    progress = FullRecords().of(ShardProgress)
    host: Any = _Host(progress)
    client = ShardClient("127.0.0.1:1")
    service = shard_pb2.DESCRIPTOR.services_by_name["ShardService"]
    loop = Loopback(service, ShardServicer(host))
    client._stub = loop  # type: ignore[assignment]
    try:
        assert same(await client.status(1.0), {ShardKey("shop", "s1", 7): progress})
        await client.load("shop", "s2")
        await loop.UnloadSnapshot(
            shard_pb2.UnloadSnapshotRequest(collection="shop", snapshot_id="s1")
        )
    finally:
        await client.close()
    assert host.told == [("load", "shop", "s2"), ("unload", "shop", "s1")]
    return loop.messages


async def test_no_part_of_the_status_of_a_shard_is_lost() -> None:
    messages = await told_to_host()
    assert not {field for one in messages for field in unset_fields(one)}


# --- Nothing is forgotten ---------------------------------------------------------------------


async def test_the_tests_of_this_module_set_every_field_of_every_message() -> None:
    messages = [one for protocol, name in METHODS for one in await called(protocol, name)]
    messages += await streamed()
    for name in SHARD_METHODS:
        messages += await asked_of_shard(name)
    messages += await told_to_host()
    modules = (types_pb2, retrieval_pb2, generation_pb2, embedding_pb2, ingest_pb2, shard_pb2)
    kinds = [one for module in modules for one in module.DESCRIPTOR.message_types_by_name.values()]
    missing = set(all_fields(iter(kinds))) - {one for part in messages for one in set_fields(part)}
    # The servicer makes these out of other calls: tests/live/test_collection_contents.py.
    missing = {one for one in missing if not one.startswith("DeleteItemsByFilter")}
    assert missing == NOT_SENT - {"Vectors.dtype"} | PAGES
