"""Tests the routing between two embedding services."""

from __future__ import annotations

import pytest

from generation.evidence.embedder_router import EmbedderRouter
from nearline.errors import SnapshotMismatch
from tests.index_builder.embedders import HashEmbedder


async def test_the_service_of_the_expected_model_is_asked() -> None:
    first, second = HashEmbedder(fingerprint="a"), HashEmbedder(fingerprint="b")
    both = EmbedderRouter({"x:1": first, "x:2": second})
    assert (await both.info()).fingerprint == "a"
    # Nothing is known yet, so the first service is used.
    assert (await both.embed(["q"])).fingerprint == "a"
    assert (await both.embed(["s"], expected_fingerprint="b")).fingerprint == "b"
    # A question has no expected model, so the last one is used.
    assert (await both.embed(["q"])).fingerprint == "b"
    assert (await both.embed(["s"], expected_fingerprint="a")).fingerprint == "a"
    assert (await both.embed(["q"])).fingerprint == "a"
    assert (first.texts, second.texts) == (["q", "s", "q"], ["s", "q"])
    with pytest.raises(SnapshotMismatch, match="x:1 has a, x:2 has b"):
        await both.embed(["s"], expected_fingerprint="c")
    # Those of an unknown model change nothing for others.
    assert (await both.embed(["q"])).fingerprint == "a"
