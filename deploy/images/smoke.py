"""Real traffic through every image: a build, searches, an answer, HTTP, the queue, the command."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import nearline
from deploy.images import milvus
from deploy.images.engine import Engine, EngineError
from deploy.images.stack import Stack
from nearline import Client, Interaction, Item, SearchOptions

QUERY = "how long do I have to return an item?"
_DOCUMENTS = {
    "returns.md": "# Returns\n\nYou can return any item within 30 days of delivery. Send it back "
    "in its original packaging. We refund the full price within five working days.\n",
    "delivery.md": "# Delivery\n\nStandard delivery takes three to five working days and costs "
    "4.90 euros. Express delivery arrives on the next working day if you order before 2 pm.\n",
}
_QUEUED = Item(id="gift", title="Gift cards", text="A gift card is valid for three years.")
# Everybody who looked at one looked at the other.
_VISITORS = [
    Interaction(item_id=item, user_id=f"visitor-{number}")
    for number in range(30)
    for item in ("returns.md", "delivery.md")
]
_QUEUED_QUERY = "how long is a gift card valid?"
VOLUMES = ("/cache", "/store", "/redis", "/milvus", "/documents")
_HTTP_TIMEOUT_S = 30.0
# A router looks for a new snapshot every few seconds.
_PROMOTED_S, _POLL_S = 60.0, 0.2
# Of a container: another user than root, and files that it cannot change except in three folders.
_CONFINED = """
test "$(id -u):$(id -g)" = 10001:10001
for folder in / /srv ~nearline /usr/local/bin /opt; do
    if touch "$folder/probe" 2>/dev/null; then echo "$folder can be written" >&2; exit 1; fi
done
for folder in /tmp /cache /store; do touch "$folder/probe"; rm "$folder/probe"; done
"""
_RAY = "index_builder-ray"


def make_volumes(folder: Path) -> dict[str, Path]:
    """Makes the folders of `VOLUMES`, which any user may write, and their documents."""
    volumes: dict[str, Path] = {}
    for inside in VOLUMES:
        path = folder / inside.removeprefix("/")
        path.mkdir(parents=True)
        path.chmod(0o777)
        volumes[inside] = path
    for name, text in _DOCUMENTS.items():
        (volumes["/documents"] / name).write_text(text, "utf-8")
    return volumes


def smoke(
    engine: Engine,
    images: Mapping[str, str],
    volumes: Mapping[str, Path],
    logs: Path,
    *,
    own_model: bool = True,
) -> dict[str, str]:
    """Starts one of everything; returns what each image did, by target.

    Args:
        engine: What runs containers.
        images: Names of images by target; what is not there runs from this checkout.
        volumes: See `make_volumes`.
        logs: Folder of the logs, new.
        own_model: Whether the embedding image keeps its model outside of its volume.
    Raises: EngineError: a process failed, or answered wrongly.
    """
    seen: dict[str, str] = {}
    with Stack(engine, images, volumes, logs) as stack:
        for target in images:
            stack.run(target, "sh", "-euc", _CONFINED)
        redis = stack.redis()
        embedding = stack.serve("embedding", "embedding")
        with Client(embedding) as client:
            vectors = client.embed([QUERY, *_DOCUMENTS.values()]).vectors
            nearest = int((vectors[1:] @ vectors[0]).argmax())
            _expect("embedding", nearest == 0, f"document {nearest} is nearest")
            if "embedding" in images and own_model:
                _expect_own_model(logs)
            seen["embedding"] = f"{vectors.shape[1]} numbers per text"

        documents = stack.path("index_builder", "/documents")
        store = stack.path("index_builder", "/store")
        backends = ("--embedding", embedding, "--redis", redis)
        build = ("--corpus", documents, "--store", store, "--shards", "2", *backends)
        stack.run_module("index_builder", "index_builder", *build)
        if _RAY in images:
            seen[_RAY] = _build_on_ray(stack, embedding)

        store = stack.path("retrieval", "/store")
        router = stack.serve("retrieval", "retrieval", "--store", store, *backends)
        seen["retrieval"] = _search(router, "retrieval")
        if milvus.TARGET in images:
            over = milvus.serve(
                stack, volumes["/store"], volumes["/milvus"], "--store", "/store", *backends
            )
            seen[milvus.TARGET] = _search(over, milvus.TARGET) + ", from Milvus"

        sources = ("--retrieval", router, "--embedding", embedding)
        generation = stack.serve("generation", "generation", *sources, "--redis", redis)
        seen["generation"] = _ask(generation)
        gateway = stack.serve("gateway", "gateway", *sources, probe="gateway.health")
        seen["gateway"] = _search_http(gateway)

        seen["index_builder"] = _ingest(stack, router, embedding, redis)
        seen["retrieval"] += f", {_learn(stack, router, *backends)}"
        if "cli" in images:
            seen["cli"] = _cli(stack, router)
    return {target: seen[target] for target in images}


def check_kept(
    engine: Engine, images: Mapping[str, str], volumes: Mapping[str, Path], logs: Path
) -> str:
    """Starts images over the volumes that `smoke` with images of an older version has filled.

    Returns: What was found there.
    Raises: EngineError: the model, the snapshot or the live change was not found.
    """
    with Stack(engine, images, volumes, logs) as stack:
        redis = stack.redis()
        embedding = stack.serve("embedding", "embedding")
        _expect_own_model(logs)
        words = ("--store", stack.path("retrieval", "/store"), "--redis", redis)
        router = stack.serve("retrieval", "retrieval", *words, "--embedding", embedding)
        _search(router, "retrieval")
        _search(router, "retrieval", _QUEUED_QUERY, _QUEUED.id)
    return "the image's own model, the snapshot and the live change"


def _expect(target: str, is_right: bool, seen: str) -> None:
    if not is_right:
        raise EngineError(f"{target} answers wrongly: {seen}")


def _expect_own_model(logs: Path) -> None:
    """The image starts with the model that it brings, and converts none."""
    converted = "converting" in (logs / "embedding.log").read_text("utf-8")
    _expect("embedding", not converted, "it did not find the model of its image")


def _search(
    router: str,
    target: str,
    query: str = QUERY,
    wanted: str = "returns.md",
    options: SearchOptions | None = None,
) -> str:
    with Client(router) as client:
        hits = client.search(query, options=options or SearchOptions()).hits
    _expect(target, bool(hits) and hits[0].id == wanted, f"{[hit.id for hit in hits]}")
    return f"{len(hits)} hits, {hits[0].id} first"


def _learn(stack: Stack, router: str, *backends: str) -> str:
    """Records what visitors did, trains on it, and asks for a list that has learned."""
    target = "index_builder"
    with Client(router) as client:
        client.record(_VISITORS)
        words = ("--learn", "true", "--store", stack.path(target, "/store"), *backends)
        report = json.loads(stack.run_module(target, target, *words))
        learned = report["behaviour"]["interactions"]
        _expect(target, learned == len(_VISITORS), json.dumps(report["behaviour"]))
        deadline = time.monotonic() + _PROMOTED_S
        while True:
            reply = client.recommend(item_ids=["returns.md"], n=1)
            if reply.info.snapshot_id == report["snapshot_id"]:
                break
            _expect(target, time.monotonic() < deadline, f"{report['snapshot_id']} is not served")
            time.sleep(_POLL_S)
    (first,) = reply.recommendations
    _expect("retrieval", first.hit.id == "delivery.md", f"{first.hit.id} goes with returns.md")
    return f"a list that has learned from {learned} interactions"


def _ask(generation: str) -> str:
    with Client(generation) as client:
        answer = client.ask(QUERY)
    cited = {citation.document_id for citation in answer.citations}
    _expect("generation", "30 days" in answer.text and "returns.md" in cited, repr(answer))
    return f"an answer with {len(answer.citations)} citations"


def _search_http(gateway: str) -> str:
    request = urllib.request.Request(
        f"http://{gateway}/v1/collections/default/search",
        json.dumps({"query": {"text": QUERY}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S) as reply:
        hits = json.load(reply)["result"]["hits"]
    _expect("gateway", bool(hits) and hits[0]["id"] == "returns.md", json.dumps(hits)[:500])
    return f"HTTP {reply.status} with {len(hits)} hits"


def _ingest(stack: Stack, router: str, embedding: str, redis: str) -> str:
    """Submits a document to the queue, and finds it; upkeep is healthy meanwhile."""
    target = "index_builder"
    sources = ("--retrieval", router, "--redis", redis)
    ingest = stack.serve(target, "index_builder.ingest", *sources)
    stack.serve(target, "index_builder.ingest.worker", *sources)
    store = stack.path(target, "/store")
    words = ("--store", store, "--embedding", embedding, "--redis", redis)
    stack.serve(target, "index_builder.maintenance", *words)
    with Client(ingest) as client:
        job = client.wait(client.submit([_QUEUED]).job_id, timeout_s=60)
    _expect(target, job.indexed == 1, repr(job))
    options = SearchOptions(min_watermark=job.watermark)
    _search(router, target, _QUEUED_QUERY, _QUEUED.id, options)
    return "a build, and a document through ingest and worker; upkeep is healthy"


def _build_on_ray(stack: Stack, embedding: str) -> str:
    """Builds a snapshot, embedded by a cluster of Ray that this one container is."""
    words = ("--corpus", "/documents", "--store", "/store", "--collection", "ray")
    command = ("env", "HOME=/tmp", "python", "-P", "-m", "index_builder", "--executor", "ray")
    report = stack.run(_RAY, *command, *words, "--embedding", embedding)
    _expect(_RAY, '"snapshot_id"' in report, report)
    return "a build on Ray"


def _cli(stack: Stack, router: str) -> str:
    version = stack.run("cli", "nearline", "--version").strip()
    _expect("cli", nearline.__version__ in version, version)
    found = stack.run("cli", "nearline", "search", QUERY, "--address", router, "--json")
    _expect("cli", "returns.md" in found, found)
    stack.run("cli", "nearline", "snapshots", "list", "--store", "/store")
    return f"{version}; a search"
