"""An item that is too large is refused before anything is done with it."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.items.documents import document_spans
from retrieval.writes import validation
from tests.retrieval.writable_collection import written

REJECTED, APPLIED = c.WriteOutcome.REJECTED, c.WriteOutcome.APPLIED


async def test_a_text_too_large_is_neither_cut_nor_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut: list[str] = []

    def spans(item: c.Item, max_tokens: int, overlap: int) -> list[tuple[int, int]]:
        cut.append(item.id)
        return document_spans(item, max_tokens, overlap)

    monkeypatch.setattr(validation, "document_spans", spans)
    here = written()
    large = c.Item(id="large", text="a " * c.MAX_TEXT_BYTES)
    reply = await here.writer.upsert_items([large, c.Item(id="small", text="red cloud")])
    assert [one.outcome for one in reply.results] == [REJECTED, APPLIED]
    assert reply.results[0].reason == "INVALID_REQUEST"
    assert "text has 2097152 bytes, and at most 1048576" in reply.results[0].message
    assert cut == ["small"]
    assert [texts for texts, *_ in here.embedder.asked] == [["red cloud"]]


async def test_attributes_too_large_are_refused_with_and_without_a_text() -> None:
    here = written()
    tags: dict[str, c.AttributeValue] = {"tags": ["a" * 1_000] * 1_100}
    for item, alone in (
        (c.Item(id="a", text="red cloud", attributes=tags), False),
        (c.Item(id="a", attributes=tags), True),
    ):
        (result,) = (await here.writer.upsert_items([item], only_attributes=alone)).results
        assert (result.outcome, result.reason) == (REJECTED, "INVALID_REQUEST")
        assert "the attributes have more than 1048576 bytes" in result.message
    assert here.embedder.asked == []
