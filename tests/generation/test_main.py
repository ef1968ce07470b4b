"""Tests that the service's process does what its settings say; only signals are left out."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from embedding.servicer import registration
from generation import __main__ as program
from nearline.access.caller_file import CallerFile
from nearline.clients import RetrievalClient
from nearline.errors import Unsupported
from nearline.serving import Registration, running
from nearline.settings import ServerSettings
from retrieval.redis_client.connection import connect
from tests.generation.conftest import DIM
from tests.generation.service_harness import Came, ask
from tests.redis_server import needs_redis, valkey
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import BEHIND_GRPC, opened

pytestmark = pytest.mark.service
OTHER = "0" * 32


def _served(embedder: WordEmbedder) -> Registration:
    return registration(lambda: embedder)  # type: ignore[arg-type, return-value]


async def _asked(
    monkeypatch: pytest.MonkeyPatch,
    store: Path,
    embedders: Sequence[WordEmbedder],
    *options: str,
    **question: object,
) -> list[Came]:
    """Starts the service of a store, and asks it the same question twice."""
    came: list[Came] = []

    async def serve(
        settings: ServerSettings,
        registrations: Sequence[Registration],
        *,
        ready: Callable[[], Awaitable[None]],
        callers: CallerFile | None = None,
    ) -> None:
        async with running(registrations, ready=ready, callers=callers) as address:
            came.extend([await ask(address, **question) for _ in range(2)])  # type: ignore[arg-type]

    monkeypatch.setattr("nearline.serving.serve", serve)
    # A busy machine may be late with a turn, which would then not be saved.
    monkeypatch.setattr(program, "connect", partial(connect, timeout_s=10.0))
    monkeypatch.setattr("nearline.telemetry.configure_logging", lambda level, service: None)
    async with contextlib.AsyncExitStack() as stack:
        retriever = await stack.enter_async_context(opened(BEHIND_GRPC, store, WordEmbedder(DIM)))
        assert isinstance(retriever, RetrievalClient)
        addresses = [await stack.enter_async_context(running([_served(one)])) for one in embedders]
        await program.main(
            [f"--retrieval={retriever.address}", f"--embedding={','.join(addresses)}", *options]
        )
    return came


@pytest.mark.parametrize(
    ("fingerprints", "reason"),
    [
        ([], "there is no embedding service"),
        ([""], ""),
        ([OTHER], f"sentences are ranked by words: this is {OTHER}"),
        ([OTHER, ""], ""),
        (["", OTHER], ""),
    ],
)
async def test_sentences_are_ranked_by_the_embedding_service_of_the_collection(
    monkeypatch: pytest.MonkeyPatch,
    store: Path,
    embedder: WordEmbedder,
    fingerprints: list[str],
    reason: str,
) -> None:
    services = [WordEmbedder(DIM, given or embedder.fingerprint) for given in fingerprints]
    for came in await _asked(monkeypatch, store, services):
        assert came.citations[0].document_id == "kettle"
        served = came.done.served_by.reason
        assert reason in served if reason else not served


async def test_sessions_need_redis(
    monkeypatch: pytest.MonkeyPatch, store: Path, embedder: WordEmbedder
) -> None:
    with pytest.raises(Unsupported, match="sessions are disabled"):
        await _asked(monkeypatch, store, [embedder], session_id="mine")


@needs_redis
async def test_sessions_are_kept_in_redis(
    monkeypatch: pytest.MonkeyPatch, store: Path, embedder: WordEmbedder
) -> None:
    async with valkey() as redis:
        came = await _asked(monkeypatch, store, [embedder], f"--redis={redis}", session_id="mine")
    states = [one.done.session for one in came]
    assert [(state.version, state.saved) for state in states if state] == [(1, True), (2, True)]
