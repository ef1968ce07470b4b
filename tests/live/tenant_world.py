"""All public services over one collection that two tenants share, with the data of tenant b drawn.

What tenant b has (`Secret`) differs between two worlds in its content, not in its number: scores of
words, watermarks, the status and the queue count everybody's, as SECURITY.md says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from index_builder.documents.records import SourceCount, SourceLocation, SourceRow
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build, build_snapshot
from nearline import contract as c
from nearline.access.rights import Right
from nearline.clients import AdminClient, EmbeddingClient, IngestClient, RetrievalClient
from nearline.clients.generation import GenerationClient
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    GENERATION_SERVICES,
    INGEST_MODULE,
    INGEST_SERVICES,
    RETRIEVAL_SERVICES,
    WORKER_MODULE,
    ServiceProcess,
    free_port,
    service_process,
)
from tests.index_builder.behaviour.circular_walks import documents, walks
from tests.index_builder.embedders import HashEmbedder
from tests.redis_server import valkey

READERS = ("public", "tenant:a", "tenant:b")


class Secret(NamedTuple):
    """What tenant b has.

    word: In its texts, titles and values, in the names of its users, sessions, jobs and files.
    attribute: Of its items alone. live: Of an item that it adds later.
    """

    word: str
    attribute: str
    live: str

    @property
    def collection(self) -> str:
        """The name of its own collection."""
        return f"{self.word}-only"


@dataclass(slots=True, kw_only=True)
class TenantWorld:
    """The running services, behind the address of the router.

    key: Of tenant a. ids: What the snapshot and the keys are called in this world.
    metrics: Port of the metrics, by process.
    """

    address: str
    key: str
    ids: Sequence[str]
    audit: Path
    metrics: Mapping[str, int]
    processes: Mapping[str, ServiceProcess]


def _items(secret: Secret) -> Iterable[c.Item]:
    for number, one in enumerate(documents()):
        readers = READERS[number % 3]
        theirs = readers == "tenant:b"
        word = secret.word if theirs else "kettle"
        attributes: dict[str, c.AttributeValue] = {"brand": f"{word} {number % 2}"}
        if theirs:
            attributes[secret.attribute] = number
        yield c.Item(
            id=one,
            title=f"Quiet {word} {number}",
            text=f"A quiet {word} boils for guest number{number}.",
            attributes=attributes | {"readers": [readers]},
        )


async def _build(store: Path, secret: Secret) -> None:
    items = list(_items(secret))
    uris = ["file:///data/public.jsonl", f"file:///data/{secret.word}.jsonl"]
    rows = [
        SourceRow(SourceLocation(uris["tenant:b" in one.attributes["readers"]], number), one)  # type: ignore[operator]
        for number, one in enumerate(items)
    ]
    await build(
        lambda bad_rows: iter(rows),
        [SourceCount(uri=one, sha256=hashlib.sha256(one.encode()).hexdigest()) for one in uris],
        BuildOptions(
            store=str(store),
            attributes={"brand": "string", "readers": "string[]"},
            training=TrainingOptions(interactions=walks()),
        ),
        HashEmbedder(),
    )
    own = [c.Item(id=secret.word, text=f"All about {secret.word}.")]
    options = BuildOptions(store=str(store), collection=secret.collection, golden_queries=0)
    await build_snapshot(own, options, HashEmbedder())


async def _work(address: str, key: str, word: str, item: c.Item) -> None:
    """Does, as one tenant, what leaves a trace somewhere."""
    async with (
        RetrievalClient(address, token=key) as retrieval,
        IngestClient(address, token=key) as ingest,
        GenerationClient(address, token=key) as generation,
        EmbeddingClient(address, token=key) as embedding,
    ):
        written = await retrieval.upsert_items([item])
        seen = c.SearchOptions(k=3, min_watermark=written.watermark)
        await retrieval.search(c.Query(text=word), seen)
        done = [c.Interaction(item_id=one, user_id=word, session_id=word) for one in ("i00", word)]
        await retrieval.record_interactions(done, idempotency_key=word)
        await retrieval.set_user(word, {word: word})
        await retrieval.recommend(c.Audience(user_id=word))
        await retrieval.suggest(word[:4])
        await embedding.embed([word])
        async for _ in generation.generate(c.Question(text=f"what is {word}?", session_id=word)):
            pass
        files: list[c.IngestSource] = [
            c.SourceFile(f"{word}.pdf", b"no PDF"),
            c.Item(id=f"{word}-queued", text=f"Queued {word}.", attributes={}),
        ]
        await ingest.submit(files, job_id=word, callback_id=word)
        await ingest.wait(word)


@contextlib.asynccontextmanager
async def tenant_world(folder: Path, secret: Secret) -> AsyncIterator[TenantWorld]:
    """Runs the services for the length of the block; tenant b, then tenant a has worked there."""
    store, keys, audit = folder / "store", folder / "keys.toml", folder / "audit.jsonl"
    await _build(store, secret)
    made = KeyStore(keys)
    a, a_id = made.create("a", {"default": Right.WRITE, "gone": Right.WRITE})
    b, b_id = made.create("b", {"default": Right.WRITE, secret.collection: Right.ADMIN})
    service, service_id = made.create("*", {"*": Right.SERVICE})
    names = ("router", "generation", "ingest")
    ports = {name: free_port() for name in names}
    metrics = {name: free_port() for name in names}
    router = f"127.0.0.1:{ports['router']}"
    secured = ("--keys", str(keys), "--slow-request-ms", "0")
    environ = {"NEARLINE_TOKEN": service}

    def words(name: str, *more: str) -> Sequence[str]:
        own = ("--port", str(ports[name]), "--metrics-port", str(metrics[name]))
        return (*own, "--redis", redis, *secured, *more)

    async with valkey() as redis, contextlib.AsyncExitStack() as stack:

        async def start(module: str, given: Sequence[str], serves: Sequence[str]) -> ServiceProcess:
            return await stack.enter_async_context(
                service_process(module, given, ready_services=serves, environ=environ)
            )

        embedding = f"127.0.0.1:{(free := free_port())}"
        found = await asyncio.gather(
            start(
                "retrieval",
                words(
                    *("router", "--store", str(store), "--embedding", embedding),
                    *("--generation", f"127.0.0.1:{ports['generation']}"),
                    *("--ingest", f"127.0.0.1:{ports['ingest']}", "--audit-log", str(audit)),
                    *("--readers-attribute", "readers", "--search-cache", "100"),
                    # Samples are drawn at random, and counted.
                    *("--recall-sample", "0", "--record-share", "0"),
                ),
                RETRIEVAL_SERVICES,
            ),
            start(
                "generation",
                words("generation", "--retrieval", router, "--readers-attribute", "readers"),
                GENERATION_SERVICES,
            ),
            start(INGEST_MODULE, words("ingest", "--retrieval", router), INGEST_SERVICES),
            start(
                "tests.index_builder.ingest.hash_embedding",
                ("--port", str(free)),
                EMBEDDING_SERVICES,
            ),
        )
        await start(
            WORKER_MODULE,
            ("--redis", redis, "--retrieval", router, "--attempts", "1", *secured),
            ("",),
        )
        live: dict[str, c.AttributeValue] = {secret.live: 1, "brand": secret.word}
        await _work(router, b, secret.word, c.Item(id="live-b", text=secret.live, attributes=live))
        await _work(router, a, "alder", c.Item(id="live-a", text="alder", attributes={}))
        async with AdminClient(router, token=service) as admin:
            snapshots = [
                (await admin.snapshot(collection=one)).snapshot_id
                for one in ("default", secret.collection)
            ]
        yield TenantWorld(
            address=router,
            key=a,
            ids=[*snapshots, a_id, b_id, service_id],
            audit=audit,
            metrics=metrics,
            processes=dict(zip(names, found, strict=False)),
        )
