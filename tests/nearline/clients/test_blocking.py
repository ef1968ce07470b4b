"""Blocking clients: the methods, types, errors and cancellation of the async ones."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import assert_type

import pytest

from nearline import contract as c
from nearline.channel import ServiceChannel
from nearline.clients import AsyncClient, blocking
from nearline.clients.client import AsyncCollections
from nearline.errors import DeadlineExceeded, InvalidRequest, NotFound
from nearline.serving import Registration, running
from nearline.v1 import generation_pb2, generation_pb2_grpc

CLIENTS = [
    blocking.BlockingAdminClient,
    blocking.BlockingEmbeddingClient,
    blocking.BlockingGenerationClient,
    blocking.BlockingIngestClient,
    blocking.BlockingRetrievalClient,
    blocking.Client,
]
QUESTION = c.Question(text="anything")


def async_client(kind: type[object]) -> type[object]:
    """Returns the client that a blocking client wraps."""
    if kind is blocking.Client:
        return AsyncClient
    return getattr(blocking, kind.__name__.removeprefix("Blocking"))  # type: ignore[no-any-return]


class Servicer(generation_pb2_grpc.GenerationServiceServicer):
    """Streams endless text for any question; the only session is "known"."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.waiting = threading.Event()

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: object
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        try:
            while True:
                yield generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="piece"))
                await asyncio.sleep(0.001)
        finally:
            self.cancelled.set()

    async def DeleteSession(
        self, request: generation_pb2.DeleteSessionRequest, context: object
    ) -> generation_pb2.DeleteSessionResponse:
        if request.session_id == "slow":
            self.waiting.set()
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        if request.session_id != "known":
            raise NotFound(f"no session {request.session_id!r}", field="session_id")
        return generation_pb2.DeleteSessionResponse(deleted=True)

    @property
    def registration(self) -> Registration:
        return Registration(
            "nearline.v1.GenerationService",
            lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
                self, server
            ),
        )


def public_methods(kind: type[object]) -> set[str]:
    names = {name for name in dir(kind) if not name.startswith("_")}
    return names - (set(dir(ServiceChannel)) - {"close"})


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_blocking_client_has_every_method_of_the_async_one(kind: type[object]) -> None:
    assert public_methods(kind) == public_methods(async_client(kind))


@pytest.mark.parametrize("kind", CLIENTS)
def test_methods_keep_their_signature_and_documentation(kind: type[object]) -> None:
    settings, originals = map(inspect.signature, (kind, async_client(kind)))
    assert [(one.name, one.default) for one in settings.parameters.values()] == [
        (one.name, one.default) for one in originals.parameters.values()
    ]
    check_methods(kind, async_client(kind))


def test_collections_have_the_same_methods_too() -> None:
    check_methods(blocking.Collections, AsyncCollections)


def check_methods(kind: type[object], copied: type[object]) -> None:
    assert public_methods(kind) == public_methods(copied)
    for name in public_methods(kind) - {"close"}:
        method, original = getattr(kind, name), getattr(copied, name)
        if isinstance(original, property):
            assert isinstance(method, property)
            continue
        assert inspect.signature(method) == inspect.signature(original)
        # What makes a client refers to the other.
        assert method.__doc__ == original.__doc__ or inspect.ismethod(original)
        assert not inspect.iscoroutinefunction(method)
        assert not inspect.isasyncgenfunction(method)


def types_are_known_to_the_checker(
    retrieval: blocking.BlockingRetrievalClient,
    embedding: blocking.BlockingEmbeddingClient,
    generation: blocking.BlockingGenerationClient,
    one: blocking.Client,
) -> None:
    """Checked by mypy; never runs."""
    assert_type(retrieval.search(c.Query(text="kettle"), timeout_s=1.0), c.SearchReply)
    assert_type(retrieval.items(), Iterator[c.Item])
    assert_type(retrieval.upsert_batches([[c.Item(id="a")]], collection="x"), c.BulkWriteReply)
    assert_type(embedding.embed_stream([["a"]]), Iterator[c.Embeddings])
    assert_type(generation.generate(QUESTION), Iterator[c.AnswerEvent])
    assert_type(one.search([0.5, 1], 3, mode="dense"), c.SearchReply)
    assert_type(one.items("price < 80"), Iterator[c.Item])
    assert_type(one.ask("why?"), c.Answer)
    assert_type(one.ingest.jobs(), c.JobPage)
    with retrieval as entered:
        assert_type(entered, blocking.BlockingRetrievalClient)
    retrieval.search(5)  # type: ignore[arg-type]
    retrieval.search(c.Query(text="kettle"), k=3)  # type: ignore[call-arg]


async def test_errors_arrive_as_their_class() -> None:
    async with running([Servicer().registration]) as address:

        def work() -> None:
            with blocking.BlockingGenerationClient(address) as client:
                assert client.delete_session("known")
                with pytest.raises(NotFound, match="no session 'x'") as caught:
                    client.delete_session("x")
                assert caught.value.field == "session_id"
                with pytest.raises(DeadlineExceeded):
                    client.delete_session("slow", timeout_s=0.1)

        await asyncio.to_thread(work)


async def test_leaving_a_stream_cancels_the_call() -> None:
    servicer = Servicer()
    async with running([servicer.registration]) as address:

        def work() -> Sequence[c.AnswerEvent]:
            with blocking.BlockingGenerationClient(address) as client:
                first = []
                for event in client.generate(QUESTION):
                    first.append(event)
                    if len(first) == 3:
                        break
                assert servicer.cancelled.wait(10)
                return first

        assert await asyncio.to_thread(work) == [c.Delta(text="piece")] * 3


async def test_threads_share_a_client() -> None:
    async with running([Servicer().registration]) as address:

        def work() -> list[bool]:
            with (
                blocking.BlockingGenerationClient(address) as client,
                ThreadPoolExecutor(8) as threads,
            ):
                return list(threads.map(client.delete_session, ["known"] * 64))

        assert await asyncio.to_thread(work) == [True] * 64


async def test_closing_a_client_cancels_its_calls() -> None:
    servicer = Servicer()
    async with running([servicer.registration]) as address:

        def work() -> None:
            with ThreadPoolExecutor(1) as threads:
                with blocking.BlockingGenerationClient(address) as client:
                    call = threads.submit(client.delete_session, "slow")
                    assert servicer.waiting.wait(10)
                assert servicer.cancelled.wait(10)
                assert isinstance(call.exception(10), CancelledError)

        await asyncio.to_thread(work)


def test_what_the_async_client_refuses_is_raised() -> None:
    with pytest.raises(InvalidRequest, match="printable ASCII"):
        blocking.BlockingGenerationClient("127.0.0.1:1", token="café")


async def test_an_open_stream_does_not_keep_the_interpreter_from_exiting() -> None:
    code = """
import sys
from nearline import BlockingGenerationClient, Question

client = BlockingGenerationClient(sys.argv[1])
events = client.generate(Question(text="anything"))
print(next(events).text)
"""
    async with running([Servicer().registration]) as address:
        process = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", code, address],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert (process.returncode, process.stdout, process.stderr) == (0, "piece\n", "")


FORKS = """
import os, signal, sys
from nearline import Client
from nearline.errors import Unsupported

client = Client("127.0.0.1:1")
if os.fork() == 0:
    signal.alarm(20)
    try:
        client.search("lamp")
    except Unsupported as error:
        print(error, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_fork_of_a_process_with_a_client_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "multiprocessing.get_context('spawn')" in done.stdout
