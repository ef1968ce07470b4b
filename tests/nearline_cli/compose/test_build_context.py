"""Models that a command starts have the device of its build."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace

import pytest

from nearline_cli.compose import build_context
from nearline_cli.compose.build_context import open_embedder


@pytest.mark.parametrize(
    ("device", "words"),
    [("auto", []), ("cpu", ["--device", "cpu"]), ("cuda:1", ["--device", "cuda:1"])],
)
async def test_a_started_service_and_workers_have_the_device_that_is_named(
    device: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Sequence[str]] = []

    @contextlib.asynccontextmanager
    async def service(arguments: Sequence[str]) -> AsyncIterator[SimpleNamespace]:
        started.append(arguments)
        yield SimpleNamespace(address="127.0.0.1:1")

    monkeypatch.setattr(build_context, "embedding_process", service)
    async with open_embedder("", quiet=True, device=device, store="s"):
        pass
    assert started == [[*words, "--store", "s"]]
    assert build_context._worker_settings(0, device).device == device
