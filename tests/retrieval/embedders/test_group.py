"""Calls to several services of one model: which gets them, and what happens when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.contract import EmbedderInfo, Embeddings, Lane, TextRole
from nearline.errors import (
    InternalError,
    InvalidRequest,
    NearlineError,
    NotReady,
    Overloaded,
    SnapshotMismatch,
)
from retrieval.embedders import endpoint
from retrieval.embedders.endpoints import Embedders
from tests.retrieval.fakes import FakeEmbedder
from tests.retrieval.small_snapshots import FINGERPRINT
from tests.waits import until


class HeldEmbedder(FakeEmbedder):
    """Answers a call once it is released; `hung` leaves checks without an answer, too."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__(dim)
        self.open = asyncio.Event()
        self.open.set()
        self.hung = False
        self.checks = 0

    async def embed(self, texts: Sequence[str], *words: Any, **options: Any) -> Embeddings:
        answer = await super().embed(texts, *words, **options)
        await self.open.wait()
        return answer

    async def info(self) -> EmbedderInfo:
        self.checks += 1
        if self.hung:
            await asyncio.Event().wait()
        return await super().info()

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().vectors([text[0] for text in texts])


def pair() -> tuple[HeldEmbedder, HeldEmbedder, Embedders]:
    first, second = HeldEmbedder(), HeldEmbedder()
    return first, second, Embedders({"a:1": first, "b:1": second})


async def known(embedders: Embedders) -> None:
    """Makes all models known, as after some calls."""
    assert set(await embedders.infos()) == {FINGERPRINT}


async def begun(embedders: Embedders, *texts: str) -> asyncio.Task[Any]:
    """Begins a call, as far as it gets by itself."""
    task = asyncio.create_task(embedders.embed(texts, FINGERPRINT, None))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def test_a_call_goes_where_the_fewest_characters_are_in_flight() -> None:
    first, second, embedders = pair()
    await known(embedders)
    first.open.clear()
    second.open.clear()
    tasks = [await begun(embedders, "1")]
    busy, idle = (first, second) if first.calls else (second, first)
    # One long text outweighs one short text, and even two.
    tasks.append(await begun(embedders, "2" * 500))
    assert len(idle.calls) == 1
    for number in range(3, 6):
        tasks.append(await begun(embedders, str(number)))
        assert len(busy.calls) == number - 1
    first.open.set()
    second.open.set()
    rows = [(await task).vectors[0].argmax() for task in tasks]
    assert rows == [1, 2, 3, 4, 5]


async def test_a_slow_service_gets_fewer_calls() -> None:
    first, _, embedders = pair()
    await known(embedders)
    first.open.clear()

    async def caller() -> None:
        for _ in range(10):
            await embedders.embed(["1"], FINGERPRINT, None)

    stuck = await begun(embedders, "1")
    while not first.calls:
        stuck.cancel()
        stuck = await begun(embedders, "1")
    await asyncio.wait_for(caller(), 5)
    assert len(first.calls) == 1
    first.open.set()
    await stuck


@pytest.mark.parametrize(
    "error", [NotReady("draining"), Overloaded("full"), InternalError("bug")], ids=repr
)
async def test_a_call_that_a_service_fails_is_repeated_on_another(error: NearlineError) -> None:
    first, second, embedders = pair()
    await known(embedders)
    first.error = error
    for number in range(8):
        found = await embedders.embed([str(number)], FINGERPRINT, 5.0)
        assert found.vectors[0].argmax() == number
    assert len(second.calls) == 8


async def test_what_no_service_could_embed_is_not_repeated() -> None:
    first, second, embedders = pair()
    await known(embedders)
    first.error = second.error = InvalidRequest("a text is empty")
    with pytest.raises(InvalidRequest):
        await embedders.embed(["1"], FINGERPRINT, 5.0)
    assert len(first.calls) + len(second.calls) == 1


async def test_a_call_that_may_have_killed_two_services_is_not_sent_to_a_third() -> None:
    three = [HeldEmbedder() for _ in range(3)]
    embedders = Embedders({f"{number}:1": one for number, one in enumerate(three)})
    await known(embedders)
    for one in three:
        one.error = NotReady("lost", peer_died=True)
    with pytest.raises(NotReady) as caught:
        await embedders.embed(["1"], FINGERPRINT, 5.0)
    assert caught.value.peer_died
    assert sum(len(one.calls) for one in three) == 2


async def test_two_overloaded_services_are_both_asked_only_by_some_calls() -> None:
    first, second, embedders = pair()
    await known(embedders)
    first.error = second.error = Overloaded("full", retry_after_s=1.0)
    for _ in range(1_000):
        with pytest.raises(Overloaded):
            await embedders.embed(["1"], FINGERPRINT, 5.0)
    # A tenth of them, and what had been saved.
    assert 1_000 < len(first.calls) + len(second.calls) <= 1_000 + 100 + 100 + 10


async def test_a_service_that_is_away_gets_no_calls_until_it_answers_a_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_CHECK_EVERY_S", 0.0)
    first, _, embedders = pair()
    await known(embedders)
    first.error = NotReady("gone")
    for _ in range(10):
        await embedders.embed(["1"], FINGERPRINT, 5.0)
    assert len(first.calls) <= 1
    asked = len(first.calls)
    first.error = None
    # It is checked while the other answers.
    async with asyncio.timeout(5):
        while len(first.calls) == asked:
            await embedders.embed(["1"], FINGERPRINT, 5.0)


async def test_a_call_to_a_service_that_hangs_is_repeated_on_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "CHECK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(endpoint, "_PATIENCE_S", 0.05)
    first, _, embedders = pair()
    await known(embedders)
    first.open.clear()
    first.hung = True
    while not first.calls:
        found = await asyncio.wait_for(embedders.embed(["3"], FINGERPRINT, None), 5)
        assert found.vectors[0].argmax() == 3
    # From now on it gets none.
    await asyncio.gather(*(embedders.embed(["3"], FINGERPRINT, None) for _ in range(20)))
    assert len(first.calls) == 1


async def test_a_slow_service_that_answers_checks_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "CHECK_TIMEOUT_S", 0.5)
    monkeypatch.setattr(endpoint, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(endpoint, "_CHECK_EVERY_S", 0.01)
    one = HeldEmbedder()
    embedders = Embedders({"a:1": one})
    await known(embedders)
    one.open.clear()
    call = await begun(embedders, "4")
    before = one.checks
    await until(lambda: one.checks >= before + 3, 5)
    one.open.set()
    assert (await call).vectors[0].argmax() == 4


async def test_many_callers_of_an_absent_service_share_a_check() -> None:
    one = HeldEmbedder()
    one.hung = True
    embedders = Embedders({"a:1": one})
    calls = [embedders.embed(["1"], FINGERPRINT, 0.05) for _ in range(50)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {NotReady}
    assert one.checks == 1


async def test_a_service_that_was_restarted_with_another_model_is_replaced() -> None:
    first, second, embedders = pair()
    await known(embedders)
    first.fingerprint = "other"
    for _ in range(6):
        await embedders.embed(["1"], FINGERPRINT, 5.0)
    assert len(second.calls) == 6
    assert set(await embedders.infos()) == {"other", FINGERPRINT}
    second.fingerprint = "third"
    with pytest.raises(SnapshotMismatch, match="a:1 has other, b:1 has third"):
        await embedders.embed(["1"], FINGERPRINT, 5.0)


async def test_a_service_that_was_restarted_with_the_model_gets_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_CHECK_EVERY_S", 0.0)
    first, second, embedders = pair()
    first.fingerprint = "old"
    assert set(await embedders.infos()) == {"old", FINGERPRINT}
    await embedders.embed(["1"], FINGERPRINT, 5.0)
    assert not first.calls and second.calls
    first.fingerprint = FINGERPRINT
    async with asyncio.timeout(5):
        while not first.calls:
            await embedders.embed(["1"], FINGERPRINT, 5.0)


async def test_batches_of_documents_are_shared() -> None:
    first, second, embedders = pair()
    await known(embedders)
    # Four texts are a batch; a service has four batches in flight.
    texts = [str(number % 8) for number in range(32)]
    first.open.clear()
    second.open.clear()
    task = asyncio.create_task(
        embedders.embed_documents(texts, FINGERPRINT, Lane.INTERACTIVE, None)
    )
    await until(lambda: len(first.calls) + len(second.calls) >= 8, 5)
    assert len(first.calls) == len(second.calls) == 4
    first.open.set()
    second.open.set()
    found = await task
    np.testing.assert_array_equal(found.vectors.argmax(axis=1), [int(text) for text in texts])
    assert {role for _, role, _ in first.calls} == {TextRole.DOCUMENT}
