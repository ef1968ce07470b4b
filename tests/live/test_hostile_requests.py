"""Malformed and hostile requests to every service: a typed error each, in time, and no harm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nearline import contract as c, wire
from nearline.clients import IngestClient
from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline.v1 import ingest_pb2_grpc
from nearline_cli.app import app
from retrieval.protocols.snapshot import read_current_snapshots
from tests.index_builder.ingest.web_server import web_server
from tests.live.hostile.cases import Case, Sender
from tests.live.hostile.common_cases import common_cases
from tests.live.hostile.endless import endless_connections
from tests.live.hostile.ingest_cases import ingest_cases
from tests.live.hostile.known import LIMIT, Known
from tests.live.hostile.pace import MOST_S, in_time
from tests.live.hostile.search_cases import search_cases
from tests.live.hostile.services import Memory, Server, Services, forget_most, running
from tests.live.hostile.shard_cases import shard_cases
from tests.live.hostile.sources import Source, hostile_sources
from tests.live.hostile.text_cases import embedding_cases, generation_cases
from tests.live.hostile.write_cases import admin_cases, write_cases
from tests.redis_server import needs_redis
from tests.scale import scaled

pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
# Written one by one; those generated from the protocol are not counted.
LEAST_CASES = 150
# Of the generated cases, which are all alike, a good request follows each tenth.
ALIKE = 10
MOST_MEMORY = 1.5
# How many are alive at once depends on when the collector of garbage runs.
MOST_COPIES = 12
CALM_S = 15.0
BUILD_S = 60.0

Table = Callable[[Known], list[Case]]
TABLES: dict[str, list[Table]] = {
    "embedding": [embedding_cases],
    "shard": [shard_cases],
    "router": [search_cases, write_cases, admin_cases],
    "generation": [generation_cases],
    "ingest": [ingest_cases],
    "worker": [],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="services")
async def give_services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    with web_server() as web:
        async with running(tmp_path_factory.mktemp("hostile"), web) as services:
            yield services


async def test_the_list_is_long_and_names_each_case_once() -> None:
    for tables in TABLES.values():
        cases = [one for table in tables for one in table(Known())]
        assert len({(one.method, one.name) for one in cases}) == len(cases)
    refused = [one for tables in TABLES.values() for table in tables for one in table(Known())]
    assert sum(one.refused for one in refused) >= LEAST_CASES


async def harm(server: Server, case: Case) -> list[str]:
    """Returns what a case has done to the answer of a good request."""
    try:
        async with asyncio.timeout(MOST_S):
            await server.good()
    except TimeoutError:
        start = time.perf_counter()
        async with asyncio.timeout(60.0):
            await server.good()
        spent_s = MOST_S + time.perf_counter() - start
        if not in_time(spent_s):
            return [f"{case.method} {case.name}: a good request then took {spent_s:.1f} s"]
    return []


@pytest.mark.parametrize("name", TABLES)
async def test_hostile_requests_get_a_typed_error_in_time_and_harm_nobody(
    services: Services, name: str
) -> None:
    server = services.servers[name]
    written = [one for table in TABLES[name] for one in table(services.known)]
    # Those generated from the protocol are all alike.
    cases = [*written, *common_cases(*server.services)[:: scaled(5, nightly=1)]]
    for _ in range(3):
        await server.good()
    idle = server.memory
    forget_most(server.process.pid)
    sender, wrong = Sender(server.address), []
    slowest = 0.0
    for number, case in enumerate(cases):
        found = await sender.judge(case)
        slowest = max(slowest, found.spent_s)
        if found.problem:
            wrong.append(
                f"{case.method} {case.name}: {found.code} in {found.spent_s:.2f} s: "
                f"{found.problem}: {found.message[:120]!r}"
            )
        if number < len(written) or number % ALIKE == 0:
            wrong += await harm(server, case)
    await sender.channel.close()
    print(f"{name}: {len(cases)} cases, slowest {slowest:.2f} s")
    assert not wrong, "\n".join(wrong)
    await calmed(name, server, idle)


async def calmed(name: str, server: Server, idle: Memory) -> None:
    """Waits until a server that was attacked has the memory of an idle one again.

    Memory of large messages is returned a second later, so only the memory at rest is bounded; what
    was needed in between is shown, and bounded by a few copies of the largest message.
    """
    assert server.process.process.returncode is None
    # What is loaded and cached on first use is much for a small server, but less than a message.
    allowed = max(MOST_MEMORY * idle.now, idle.now + LIMIT)
    try:
        async with asyncio.timeout(CALM_S):
            while (after := server.memory).now > allowed:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{name} takes {after}, and {idle} when idle") from None
    print(f"{name}: {idle} when idle, {after} afterwards")
    assert after.most <= idle.now + MOST_COPIES * LIMIT


async def test_connections_and_streams_that_never_end_harm_nobody(services: Services) -> None:
    for name, server in services.servers.items():
        idle = server.memory
        forget_most(server.process.pid)
        async with endless_connections(server.address, server.services):
            start = time.perf_counter()
            await server.good()
            assert in_time(time.perf_counter() - start), name
        await calmed(name, server, idle)


async def test_workers_refuse_hostile_sources_and_touch_nothing_else(services: Services) -> None:
    worker = services.servers["worker"]
    sources = hostile_sources(services.files, services.web, services.redis)
    idle = worker.memory
    forget_most(worker.process.pid)
    async with IngestClient(services.servers["ingest"].address) as client:
        stub: Any = ingest_pb2_grpc.IngestServiceStub(client.grpc_channel)

        async def settled(source: c.IngestSource) -> list[c.IngestResult]:
            """Submits a source as a job of its own; returns its results."""
            # Without our client, which refuses some of them itself.
            request = wire.submit_request(
                [source],
                collection="texts",
                tenant="",
                priority=c.JobPriority.NORMAL,
                callback_id="",
                job_id=c.new_job_id(),
                offset=0,
                more=False,
                result_ttl_s=None,
            )
            job_id = (await stub.Submit(request, timeout=10)).job.job_id
            async for _ in client.watch(job_id, timeout_s=60.0):
                pass
            return list((await client.results(job_id)).results)

        found = await asyncio.gather(*(settled(one.sent) for one in sources))
        wrong = [
            f"{source.name}: {problem}"
            for source, results in zip(sources, found, strict=True)
            if (problem := source_problem(source, results))
        ]
        assert not wrong, "\n".join(wrong)
        good = await settled(c.SourceFile("good.md", b"# Good\n\nwords"))
    assert [one.outcome for one in good] == [c.IngestOutcome.INDEXED]
    await calmed("worker", worker, idle)


def source_problem(source: Source, results: Sequence[c.IngestResult]) -> str:
    """Returns why the results of a source are wrong; empty if they are right."""
    expanded = c.IngestOutcome.EXPANDED
    ends = [one for one in results if one.outcome is not expanded]
    if not source.says:
        indexed = [one.outcome for one in ends] == [c.IngestOutcome.INDEXED]
        return "" if indexed else f"not indexed: {results}"
    if not ends:
        return f"no results but {results}"
    for one in ends:
        if (one.outcome, one.reason) != (c.IngestOutcome.DEAD, InvalidRequest.reason):
            return f"{one.outcome} for {one.reason!r}: {one.message[:200]}"
        if one.attempts > 1:
            return f"tried {one.attempts} times"
        if source.says not in one.message:
            return f"does not say {source.says!r}: {one.message[:200]}"
    return ""


async def test_a_hostile_markdown_file_in_a_build_costs_only_itself(
    services: Services, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "hostile.md").write_bytes(b"# a" + b" " * 10_000 + b"b")
    (corpus / "good.md").write_text("# Good\n\nwords")
    words = ("build", "--corpus", str(corpus), "--store", str(tmp_path / "store"), "--json")
    where = ("--embedding", services.servers["embedding"].address)
    start = time.perf_counter()
    await asyncio.to_thread(app, (*words, *where), standalone_mode=False)
    spent_s = time.perf_counter() - start
    print(f"a build with the hostile Markdown file took {spent_s:.1f} s")
    assert spent_s < BUILD_S
    (snapshot,) = read_current_snapshots(Store(tmp_path / "store"), ["default"])
    assert snapshot.manifest.documents == 2
