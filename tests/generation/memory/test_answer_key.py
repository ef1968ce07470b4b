"""Every input of an answer is part of the key under which it is cached."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from generation.evidence.evidence_reader import EvidenceReader
from generation.memory.answer_cache import AnswerKey
from generation.protocols.access import AccessControl, Caller
from generation.service import GenerationService
from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.filters import Equals
from tests.generation.conftest import ITEMS
from tests.generation.memory.test_answer_cache import ASKED, Altered, Kept, is_cached
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

KEY = AnswerKey(
    collection="shop",
    caller=Caller("acme", ("staff",)),
    question="what is it?",
    options=c.Question(text="what is it?"),
    snapshot_id="s1",
    fingerprint="f1",
    policy="p1",
)
CHANGES: dict[str, object] = {
    "collection": "other",
    "question": "what is that?",
    "snapshot_id": "s2",
    "fingerprint": "f2",
    "policy": "p2",
}
CALLERS = {"tenant": Caller("other", ("staff",)), "roles": Caller("acme", ("staff", "boss"))}
OPTIONS: dict[str, object] = {
    "filter": Equals("kind", "manual"),
    "mode": c.SearchMode.DENSE,
    "max_tokens": 100,
    "documents": 3,
    "refuse": False,
    "backend": "large",
    "unsupported": c.Unsupported.MARK,
}
# text: The condensed question counts. temperature: Only answers at 0 are cached. The others say
# where the conversation is stored, and whether to bypass the cache.
NO_INPUTS = {"text", "temperature", "session_id", "session_version", "history", "fresh"}


def test_each_field_alone_changes_the_key() -> None:
    variants = [replace(KEY, **{name: value}) for name, value in CHANGES.items()]  # type: ignore[arg-type]
    variants += [replace(KEY, caller=caller) for caller in CALLERS.values()]
    variants += [
        replace(KEY, options=replace(KEY.options, **{name: value}))  # type: ignore[arg-type]
        for name, value in OPTIONS.items()
    ]
    digests = {key.digest() for key in (KEY, *variants)}
    assert len(digests) == 1 + len(variants)
    assert replace(KEY, caller=Caller("acme", ("staff",))).digest() == KEY.digest()


def test_no_field_is_forgotten() -> None:
    assert {one.name for one in fields(AnswerKey)} == {*CHANGES, "caller", "options"}
    assert {one.name for one in fields(Caller)} == set(CALLERS)
    assert {one.name for one in fields(c.Question)} == {*OPTIONS, *NO_INPUTS}


@pytest.mark.parametrize("field", sorted(NO_INPUTS))
def test_other_fields_of_the_question_do_not(field: str) -> None:
    values: dict[str, object] = {
        "text": "and that?",
        "temperature": 0.5,
        "session_id": "s",
        "session_version": 3,
        "history": (c.Turn("q", "a"),),
        "fresh": True,
    }
    changed = replace(KEY, options=replace(KEY.options, **{field: values[field]}))  # type: ignore[arg-type]
    assert changed.digest() == KEY.digest()


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
    access = AccessControl(attribute="kind")
    staff = Caller("acme", ("manual",))
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
            access=access,
        )
        asked = c.Question(text="the lamp and the kettle and the fox", refuse=False)
        events = [event async for event in service.generate(asked, timeout_s=20.0, caller=staff)]
    assert isinstance(events[0], c.Evidence)
    assert {hit.id for hit in events[0].documents} >= {"kettle", "lamp"}
    assert {one.document_id for one in events if isinstance(one, c.Citation)} == {"kettle"}
    said = "".join(event.text for event in events if isinstance(event, c.Delta))
    assert "batteries" not in said and "fox" not in said
