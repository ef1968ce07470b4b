"""Real traffic through every image: a build, searches, an answer, HTTP, the queue, the command."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import nearline
from deploy.images.engine import Engine, EngineError
from deploy.images.stack import Stack
from nearline import Client, Interaction, Item, SearchOptions
from nearline_cli.local.processes import free_port

QUERY = "how long do I have to return an item?"
_DOCUMENTS = {
    "returns.md": "# Returns\n\nYou can return any item within 30 days of delivery. Send it back "
    "in its original packaging. We refund the full price within five working days.\n",
    "delivery.md": "# Delivery\n\nStandard delivery takes three to five working days and costs "
    "4.90 euros. Express delivery arrives on the next working day if you order before 2 pm.\n",
}
_QUEUED = Item(id="gift", title="Gift cards", text="A gift card is valid for three years.")
_QUEUED_QUERY = "how long is a gift card valid?"
# Everybody who looked at one looked at the other.
_VISITORS = [
    Interaction(item_id=item, user_id=f"visitor-{number}")
    for number in range(30)
    for item in ("returns.md", "delivery.md")
]
_FOLDERS = ("store", "redis", "milvus", "documents")
_HTTP_TIMEOUT_S = 30.0
_PROBE_S = 1.0
# A router looks for a new snapshot every few seconds.
_PROMOTED_S, _POLL_S = 60.0, 0.2
# Of a container: another user than root, and files that it cannot change except in two folders.
_CONFINED = """
test "$(id -u):$(id -g)" = 10001:10001
for folder in / /srv /usr/local/bin /opt; do
    if touch "$folder/probe" 2>/dev/null; then echo "$folder can be written" >&2; exit 1; fi
done
for folder in /tmp "$1"; do touch "$folder/probe"; rm "$folder/probe"; done
"""
_RAY = "index_builder-ray"
_MILVUS = "retrieval-milvus"


def smoke(engine: Engine, images: Mapping[str, str], folder: Path, logs: Path) -> dict[str, str]:
    """Starts one of everything; returns what each image did, by target.

    Args:
        engine: What runs containers.
        images: Names of images by target; what is not there runs from this checkout.
        folder: Where services keep their data, new.
        logs: Folder of the logs, new.
    Raises: EngineError: a process failed, or answered wrongly.
    """
    for path in (folder, *(folder / name for name in _FOLDERS)):
        path.mkdir()
        path.chmod(0o777)
    for name, text in _DOCUMENTS.items():
        (folder / "documents" / name).write_text(text, "utf-8")
    store = str(folder / "store")
    seen: dict[str, str] = {}
    with Stack(engine, images, folder, logs) as stack:
        for target in images:
            stack.run(target, "sh", "-euc", _CONFINED, "sh", store)
        redis = stack.redis()
        embedding = stack.serve("embedding", "embedding")
        with Client(embedding) as client:
            vectors = client.embed([QUERY, *_DOCUMENTS.values()]).vectors
            nearest = int((vectors[1:] @ vectors[0]).argmax())
            _expect("embedding", nearest == 0, f"document {nearest} is nearest")
        if "embedding" in images:
            converted = "converting" in (logs / "embedding.log").read_text("utf-8")
            _expect("embedding", not converted, "it did not find the model of its image")
        seen["embedding"] = f"{vectors.shape[1]} numbers per text"

        backends = ("--store", store, "--embedding", embedding, "--redis", redis)
        corpus = ("--corpus", str(folder / "documents"))
        build = ("python", "-P", "-m", "index_builder", *corpus, *backends, "--shards", "2")
        stack.run("index_builder", *build)
        if _RAY in images:
            # Its one container is a cluster of Ray, which embeds.
            ray = (*build, "--executor", "ray", "--collection", "ray")
            report = stack.run(_RAY, "env", "HOME=/tmp", *ray)
            _expect(_RAY, '"snapshot_id"' in report, report)
            seen[_RAY] = "a build on Ray"

        router = stack.serve("retrieval", "retrieval", *backends)
        seen["retrieval"] = _search(router, "retrieval")
        if _MILVUS in images:
            over = _serve_milvus(stack, folder, *backends)
            seen[_MILVUS] = _search(over, _MILVUS) + ", from Milvus"

        sources = ("--retrieval", router, "--embedding", embedding)
        generation = stack.serve("generation", "generation", *sources, "--redis", redis)
        seen["generation"] = _ask(generation)
        gateway = stack.serve("gateway", "gateway", *sources, probe="gateway.health")
        seen["gateway"] = _search_http(gateway)

        seen["index_builder"] = _ingest(stack, router, redis, *backends)
        seen["retrieval"] += f", {_learn(stack, router, *backends)}"
        if "cli" in images:
            seen["cli"] = _cli(stack, router, store)
    return {target: seen[target] for target in images}


def _expect(target: str, is_right: bool, seen: str) -> None:
    if not is_right:
        raise EngineError(f"{target} answers wrongly: {seen}")


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


def _serve_milvus(stack: Stack, folder: Path, *backends: str) -> str:
    """Exports the snapshot to the small Milvus; returns the address of a router over it."""
    if not all(map(importlib.util.find_spec, ("pymilvus", "milvus_lite"))):
        raise EngineError(
            f"testing {_MILVUS} needs the small Milvus: run pip install 'nearline-server[milvus]'"
        )
    port = free_port()
    serve = ("-m", "milvus_lite", "server", "--data-dir", str(folder / "milvus"))
    words = [sys.executable, *serve, "--host", "127.0.0.1", "--port", str(port)]
    stack.start("milvus", words, lambda: _why_closed(port))
    uri = f"http://127.0.0.1:{port}"
    snapshots = ("python", "-P", "-m", "nearline_cli.main", "snapshots")
    store = ("--store", str(folder / "store"))
    listed = stack.run("", *snapshots, "list", "--json", *store)
    snapshot = str(json.loads(listed.splitlines()[0])["snapshot"])
    stack.run("", *snapshots, "export", snapshot, "--to", "milvus", "--milvus-uri", uri, *store)
    return stack.serve(_MILVUS, "retrieval", "--backend", "milvus", "--milvus-uri", uri, *backends)


def _why_closed(port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), _PROBE_S).close()
    except OSError as error:
        return str(error)
    return ""


def _learn(stack: Stack, router: str, *backends: str) -> str:
    """Records what visitors did, trains on it, and asks for a list that has learned."""
    target = "index_builder"
    with Client(router) as client:
        client.record(_VISITORS)
        words = ("python", "-P", "-m", target, "--learn", "true", *backends)
        report = json.loads(stack.run(target, *words))
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


def _ingest(stack: Stack, router: str, redis: str, *backends: str) -> str:
    """Submits a document to the queue, and finds it; upkeep is healthy meanwhile."""
    target = "index_builder"
    sources = ("--retrieval", router, "--redis", redis)
    ingest = stack.serve(target, "index_builder.ingest", *sources)
    stack.serve(target, "index_builder.ingest.worker", *sources)
    stack.serve(target, "index_builder.maintenance", *backends)
    with Client(ingest) as client:
        job = client.wait(client.submit([_QUEUED]).job_id, timeout_s=60)
    _expect(target, job.indexed == 1, repr(job))
    options = SearchOptions(min_watermark=job.watermark)
    _search(router, target, _QUEUED_QUERY, _QUEUED.id, options)
    return "a build, and a document through ingest and worker; upkeep is healthy"


def _cli(stack: Stack, router: str, store: str) -> str:
    version = stack.run("cli", "nearline", "--version").strip()
    _expect("cli", nearline.__version__ in version, version)
    found = stack.run("cli", "nearline", "search", QUERY, "--address", router, "--json")
    _expect("cli", "returns.md" in found, found)
    stack.run("cli", "nearline", "snapshots", "list", "--store", store)
    return f"{version}; a search"
