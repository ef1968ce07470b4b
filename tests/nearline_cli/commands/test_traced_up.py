"""Traces of requests through all services of `nearline up`, in a collector."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from nearline import Client, Item
from nearline.tracing.trace_context import format_traceparent
from nearline_cli.local.processes import free_port
from tests.nearline_cli.conftest import ROOT, Up, command
from tests.redis_server import needs_redis
from tests.trace_collector import Collector, ReceivedSpan, trace_collector

pytestmark = [pytest.mark.service, pytest.mark.long, pytest.mark.timeout(300), needs_redis]
QUESTION = "What does the teapot of Jane Doe weigh?"
ITEMS = [
    Item(id="mug", title="Mug", text="A mug of stoneware for tea. It holds 300 ml."),
    Item(id="pot", title="Teapot", text="A pot to make tea in. The teapot weighs 900 grams."),
]
# Names of services and spans, from the outermost inwards.
WAY = [
    ("nearline-gateway", "POST /v1/collections/{collection}/answers"),
    ("nearline-gateway", "nearline.v1.GenerationService/Generate"),
    ("nearline-generation", "nearline.v1.GenerationService/Generate"),
    ("nearline-generation", "find evidence"),
    ("nearline-generation", "nearline.v1.RetrievalService/Search"),
    ("nearline-retrieval", "nearline.v1.RetrievalService/Search"),
]
TO_EMBEDDING = [
    ("nearline-retrieval", "embed"),
    ("nearline-retrieval", "nearline.v1.EmbeddingService/Embed"),
    ("nearline-embedding", "nearline.v1.EmbeddingService/Embed"),
    ("nearline-embedding", "inference"),
]
TO_SHARD = [
    ("nearline-retrieval", "fan-out"),
    ("nearline-retrieval", "shard"),
    ("nearline-retrieval", "nearline.internal.v1.ShardService/SearchShard"),
    ("nearline-shard", "nearline.internal.v1.ShardService/SearchShard"),
    ("nearline-shard", "index search"),
]


@dataclass(frozen=True)
class Services:
    """A running `nearline up`. router, http: Its addresses."""

    router: str
    http: str

    def ask(self) -> str:
        """Asks a question over HTTP whose trace is recorded; returns the trace."""
        trace = secrets.token_hex(16)
        reply = self.post("answers", {"question": QUESTION}, trace)
        assert reply.headers["x-trace-id"] == trace
        assert "900 grams" in reply.text
        return trace

    def post(self, path: str, body: dict[str, Any], trace: str) -> httpx2.Response:
        """Sends a request of the collection."""
        url = f"http://{self.http}/v1/collections/default/{path}"
        header = format_traceparent(trace, secrets.token_hex(8), sampled=True)
        reply = httpx2.post(url, json=body, headers={"traceparent": header}, timeout=60)
        assert reply.status_code == 200, reply.text
        return reply


@contextlib.contextmanager
def services(folder: Path, endpoint: str) -> Iterator[Services]:
    """Runs all services, which record nothing but what callers ask for."""
    traced = {"NEARLINE_TRACE_ENDPOINT": endpoint, "NEARLINE_TRACE_SAMPLE": "0"}
    line = command("up", "--store", str(folder), "--port", "0", "--json", "--separate")
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **traced}
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            up = Up(process)
            with Client(up.address) as client:
                client.collections.create("default")
                client.upsert(ITEMS)
                client.search("tea", mode="lexical")
            yield Services(up.address, str(up.rows[-1]["http"]).removeprefix("http://"))
        finally:
            process.terminate()
            process.wait(60)
    psutil.wait_procs(up.children, 30)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with trace_collector() as found:
        yield found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("store"), collector.address) as found:
        yield found


def of_trace(spans: Sequence[ReceivedSpan], trace: str) -> dict[str, ReceivedSpan]:
    return {one.span_id: one for one in spans if one.trace_id == trace}


def is_whole(spans: Sequence[ReceivedSpan], trace: str) -> bool:
    """Returns whether the outermost span has arrived, and the parent of each other one."""
    found = of_trace(spans, trace)
    outside = [one for one in found.values() if one.parent_id not in found]
    return len(outside) == 1 and outside[0].service == "nearline-gateway"


def ways(found: dict[str, ReceivedSpan]) -> list[list[tuple[str, str]]]:
    """Returns, for each span, the services and names from the outermost to it."""
    paths = []
    for one in found.values():
        path = [one]
        while (parent := found.get(path[0].parent_id)) is not None:
            path.insert(0, parent)
        paths.append([(span.service, span.name) for span in path])
    return paths


def wait_for_ways(
    collector: Collector, trace: str, wanted: Sequence[list[tuple[str, str]]], timeout_s: float
) -> dict[str, ReceivedSpan]:
    """Returns the spans of a trace, once they form one tree with the wanted ways in it.

    Each process sends its own spans, in no order: a leaf may come last.
    """

    def has_come(seen: list[ReceivedSpan]) -> bool:
        paths = ways(of_trace(seen, trace))
        return is_whole(seen, trace) and all(way in paths for way in wanted)

    return of_trace(collector.wait_for(has_come, timeout_s), trace)


def test_an_answer_is_one_tree_from_the_gateway_to_shard_and_embedding(
    running: Services, collector: Collector
) -> None:
    trace = running.ask()
    found = wait_for_ways(collector, trace, [[*WAY, *TO_EMBEDDING], [*WAY, *TO_SHARD]], 20)
    assert len(found) > 35
    for one in found.values():
        if (parent := found.get(one.parent_id)) is not None:
            # A server may end its span after its caller has the reply.
            assert parent.start_ns <= one.start_ns <= parent.end_ns, (parent, one)
    names = {one.name for one in found.values()}
    assert {"merge", "payload", "read evidence", "tokenize", "queue"} <= names
    [search] = [
        one for one in found.values() if (one.service, one.name) == WAY[-1] and one.kind == 2
    ]
    assert search.attributes["nearline.collection"] == "default"
    assert search.attributes["nearline.shards_answered"] == 1
    shown = repr(collector.spans)
    assert not any(text in shown for text in ("Jane", "teapot", "stoneware", "mug"))


def test_what_is_submitted_is_traced_through_queue_worker_and_change_log(
    running: Services, collector: Collector
) -> None:
    trace = secrets.token_hex(16)
    document = {"item": {"id": "lamp", "title": "Lamp", "text": "A lamp to read by."}}
    running.post("jobs", {"sources": [document]}, trace)
    way = [
        ("nearline-gateway", "POST /v1/collections/{collection}/jobs"),
        ("nearline-gateway", "nearline.v1.IngestService/Submit"),
        ("nearline-ingest", "nearline.v1.IngestService/Submit"),
        ("nearline-worker", "ingest batch"),
        ("nearline-worker", "nearline.v1.RetrievalService/UpsertItems"),
        ("nearline-retrieval", "nearline.v1.RetrievalService/UpsertItems"),
        ("nearline-retrieval", "append to change log"),
    ]
    wait_for_ways(collector, trace, [way], 120)


@pytest.mark.skipif(
    shutil.which("phoenix") is None,
    reason="no collector on the path: pip install arize-phoenix, in an environment of its own",
)
def test_a_real_collector_shows_the_same_tree(tmp_path: Path) -> None:
    http, grpc_port = free_port(), free_port()
    environ = {
        **os.environ,
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(http),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
    }
    (tmp_path / "phoenix").mkdir()
    phoenix = subprocess.Popen(
        ["phoenix", "serve"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    spans_url = f"http://127.0.0.1:{http}/v1/projects/default/spans?limit=1000"
    try:
        _until_answers(f"http://127.0.0.1:{http}/healthz")
        with services(tmp_path / "store", f"127.0.0.1:{grpc_port}") as running:
            trace = running.ask()
        # They have sent everything when they have ended; the collector may still store it.
        wanted = {name for _, name in [*WAY, *TO_EMBEDDING, *TO_SHARD]}
        shown = _until_answers(
            spans_url, lambda reply: wanted <= {one["name"] for one in _shown(reply, trace)}
        )
    finally:
        phoenix.terminate()
        phoenix.wait(30)
    by_id = {one["context"]["span_id"]: one for one in _shown(shown, trace)}
    outside = [one["name"] for one in by_id.values() if one["parent_id"] not in by_id]
    assert outside == [WAY[0][1]]


def _shown(reply: httpx2.Response, trace: str) -> list[dict[str, Any]]:
    """Returns the spans of a trace in a reply of Phoenix."""
    return [one for one in reply.json()["data"] if one["context"]["trace_id"] == trace]


def _until_answers(
    url: str, enough: Callable[[httpx2.Response], bool] = lambda _: True
) -> httpx2.Response:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            reply = httpx2.get(url, timeout=30)
            if reply.status_code == 200 and enough(reply):
                return reply
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer as it should")
