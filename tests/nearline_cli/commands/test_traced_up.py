"""Traces of requests through all services of `nearline up`, in a collector."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from nearline import Client, Item
from nearline.tracing.trace_context import format_traceparent, new_span_id, new_trace_id
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
        trace = new_trace_id()
        reply = self.post("answers", {"question": QUESTION}, trace)
        assert reply.headers["x-trace-id"] == trace
        assert "900 grams" in reply.text
        return trace

    def post(self, path: str, body: dict[str, Any], trace: str) -> httpx2.Response:
        """Sends a request of the collection."""
        url = f"http://{self.http}/v1/collections/default/{path}"
        header = format_traceparent(trace, new_span_id(), sampled=True)
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


def test_an_answer_is_one_tree_from_the_gateway_to_shard_and_embedding(
    running: Services, collector: Collector
) -> None:
    trace = running.ask()
    spans = collector.wait_for(
        lambda seen: is_whole(seen, trace) and len(of_trace(seen, trace)) > 40
    )
    found = of_trace(spans, trace)
    paths = ways(found)
    assert [*WAY, *TO_EMBEDDING] in paths
    assert [*WAY, *TO_SHARD] in paths
    for one in found.values():
        if (parent := found.get(one.parent_id)) is not None:
            assert parent.start_ns <= one.start_ns <= one.end_ns, (parent, one)
            # What a reply has taken to arrive is not yet in the span of its server.
            assert one.end_ns <= parent.end_ns + 20e6, (parent, one)
    names = {one.name for one in found.values()}
    assert {"merge", "payload", "read evidence", "tokenize", "queue"} <= names
    [search] = [
        one for one in found.values() if (one.service, one.name) == WAY[-1] and one.kind == 2
    ]
    assert search.attributes["nearline.collection"] == "default"
    assert search.attributes["nearline.shards_answered"] == 1
    shown = repr(spans)
    assert not any(text in shown for text in ("Jane", "teapot", "stoneware", "mug"))


def test_what_is_submitted_is_traced_through_queue_worker_and_change_log(
    running: Services, collector: Collector
) -> None:
    trace = new_trace_id()
    document = {"item": {"id": "lamp", "title": "Lamp", "text": "A lamp to read by."}}
    running.post("jobs", {"sources": [document]}, trace)
    spans = collector.wait_for(
        lambda seen: any(one.name == "ingest batch" and one.trace_id == trace for one in seen), 120
    )
    assert [
        ("nearline-gateway", "POST /v1/collections/{collection}/jobs"),
        ("nearline-gateway", "nearline.v1.IngestService/Submit"),
        ("nearline-ingest", "nearline.v1.IngestService/Submit"),
        ("nearline-worker", "ingest batch"),
        ("nearline-worker", "nearline.v1.RetrievalService/UpsertItems"),
        ("nearline-retrieval", "nearline.v1.RetrievalService/UpsertItems"),
        ("nearline-retrieval", "append to change log"),
    ] in ways(of_trace(spans, trace))


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
        # They have sent everything when they have ended.
        _until_answers(spans_url)
        shown = [
            one
            for one in httpx2.get(spans_url, timeout=30).json()["data"]
            if one["context"]["trace_id"] == trace
        ]
    finally:
        phoenix.terminate()
        phoenix.wait(30)
    by_id = {one["context"]["span_id"]: one for one in shown}
    outside = [one["name"] for one in shown if one["parent_id"] not in by_id]
    assert outside == [WAY[0][1]]
    wanted = [name for _, name in [*WAY, *TO_EMBEDDING, *TO_SHARD]]
    assert set(wanted) <= {one["name"] for one in shown}


def _until_answers(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=10).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")
