"""Callers share a cached answer only if they would get the same one; see also `test_cache_keys`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from generation.evidence.evidence_reader import EvidenceReader
from generation.service import GenerationService
from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.readers import ReaderFilter
from tests.generation.conftest import ITEMS
from tests.generation.memory.test_answer_cache import ASKED, Altered, Kept, is_cached
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened


async def _ask(
    retriever: c.Retriever, embedder: WordEmbedder, kept: Kept, caller: Caller
) -> list[c.AnswerEvent]:
    service = GenerationService(
        retriever,
        EvidenceReader(retriever, embedder),
        cache=kept,  # type: ignore[arg-type]
    )
    return [event async for event in service.generate(ASKED, timeout_s=20.0, caller=caller)]


async def test_callers_with_other_roles_do_not_share_answers(
    store: Path, embedder: WordEmbedder
) -> None:
    kept = Kept()
    callers = [Caller("acme", ("staff",)), Caller("acme"), Caller("other", ("staff",))]
    async with opened(OBJECT, store, embedder) as retriever:
        for caller in callers:
            assert not is_cached(await _ask(retriever, embedder, kept, caller))
        for caller in callers:
            assert is_cached(await _ask(retriever, embedder, kept, caller))


async def test_an_answer_is_not_reused_for_the_next_snapshot(
    store: Path, embedder: WordEmbedder
) -> None:
    kept, caller = Kept(), Caller()
    async with opened(OBJECT, store, embedder) as retriever:
        assert not is_cached(await _ask(retriever, embedder, kept, caller))
        assert is_cached(await _ask(retriever, embedder, kept, caller))
    # The same documents, so that every source is unchanged.
    options = BuildOptions(
        store=str(store), shards=2, chunks=ChunkOptions(max_tokens=24, overlap_sentences=1)
    )
    await build_snapshot(ITEMS, options, embedder)
    async with opened(OBJECT, store, embedder) as retriever:
        assert not is_cached(await _ask(retriever, embedder, kept, caller))


async def test_a_document_of_other_readers_is_not_cited_even_if_every_search_lets_it_through(
    store: Path, embedder: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff, boss = Caller("acme", ("manual",)), Caller("acme", ("manual", "boss"))
    readers = {"kettle": ["role:manual"], "lamp": ["role:boss"], "tale": ["role:boss"]}

    def shared(reply: c.SearchReply) -> c.SearchReply:
        hits = [replace(hit, attributes={"kind": readers[hit.id]}) for hit in reply.hits]
        return replace(reply, results=[replace(reply.results[0], hits=hits)])

    # The filter of the evidence is a check of its own; this test is about the one that follows.
    monkeypatch.setattr("generation.evidence.evidence_reader.admits", lambda *_: True)
    async with opened(OBJECT, store, embedder) as retriever:
        altered = Altered(retriever, found=shared, filtered=False)
        service = GenerationService(
            altered,  # type: ignore[arg-type]
            EvidenceReader(altered, embedder),  # type: ignore[arg-type]
            readers=ReaderFilter("kind"),
        )
        asked = c.Question(text="the lamp and the kettle and the fox", refuse=False)
        events, of_boss = [
            [event async for event in service.generate(asked, timeout_s=20.0, caller=caller)]
            for caller in (staff, boss)
        ]
    assert isinstance(events[0], c.Evidence)
    assert {hit.id for hit in events[0].documents} >= {"kettle", "lamp"}
    # Whoever may read all of it is answered from what the others are not shown.
    assert not {"lamp", "tale"}.isdisjoint(_cited(of_boss))
    assert _cited(events) <= {"kettle"}
    said = "".join(event.text for event in events if isinstance(event, c.Delta))
    assert "batteries" not in said and "fox" not in said


def _cited(events: Sequence[c.AnswerEvent]) -> set[str]:
    return {one.document_id for one in events if isinstance(one, c.Citation)}
