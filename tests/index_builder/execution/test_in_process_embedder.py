"""The model of a worker runs on the GPU that Ray gave it, or on the device of its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedding.service import EmbeddingService
from embedding.settings import EmbeddingSettings
from index_builder.execution.in_process_embedder import InProcessModel


class Opened:
    """An embedding service that only closes."""

    async def close(self) -> None:
        """Does nothing."""


@pytest.mark.parametrize(
    ("device", "gpu", "used"),
    [
        ("auto", True, "cuda:0"),
        ("cuda:3", True, "cuda:0"),
        ("auto", False, "auto"),
        ("cpu", False, "cpu"),
        ("cuda:3", False, "cuda:3"),
    ],
)
async def test_the_device_of_a_worker(
    device: str, gpu: bool, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[EmbeddingSettings] = []

    async def open_service(settings: EmbeddingSettings, cache: Path) -> Opened:
        await asyncio.sleep(0)
        opened.append(settings)
        return Opened()

    monkeypatch.setattr(EmbeddingService, "open", open_service)
    settings: Mapping[str, str] = {"device": device}
    async with InProcessModel(EmbeddingSettings.load(settings))(2, gpu):
        pass
    assert [one.device for one in opened] == [used]
