"""Tests answers over a real snapshot: order of events, citations, refusals, invalid input."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from generation.checks.citations import text_hash
from generation.evidence.evidence_reader import EvidenceReader
from generation.service import GenerationService
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import BlockingGenerationClient, contract as c
from nearline.clients import GenerationClient
from nearline.errors import DeadlineExceeded, InvalidRequest, NotFound, NotReady, Unsupported
from nearline.filters import Equals
from nearline.serving import running
from tests.generation.conftest import ITEMS, registration
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

TEXTS = {item.id: item.text for item in ITEMS}


async def events(generator: c.Generator, question: c.Question) -> list[c.AnswerEvent]:
    return [event async for event in generator.generate(question, timeout_s=20.0)]


def asked(text: str, **more: object) -> c.Question:
    # Refusals are tested separately, because the default models do not fit this collection.
    return replace(c.Question(text=text, refuse=False), **more)  # type: ignore[arg-type]


def answer(found: Sequence[c.AnswerEvent]) -> str:
    return "".join(event.text for event in found if isinstance(event, c.Delta))


async def test_an_answer_is_evidence_then_cited_sentences_then_the_end(
    generator: c.Generator,
) -> None:
    found = await events(generator, asked("descale the kettle with vinegar"))
    evidence, done = found[0], found[-1]
    assert isinstance(evidence, c.Evidence) and isinstance(done, c.Done)
    assert evidence.documents[0].id == "kettle"
    assert evidence.info.snapshot_id and evidence.info.coverage.shards_answered == 2
    assert "Descale it with vinegar every month. [1]" in answer(found)
    cited = [event for event in found if isinstance(event, c.Citation)]
    assert [one.number for one in cited] == list(range(1, len(cited) + 1))
    assert done.citations == len(cited)
    assert done.served_by.rung == "extractive" and not done.served_by.reason
    for one in cited:
        span = TEXTS[one.document_id][one.char_start : one.char_end]
        assert one.text_hash == text_hash(span)
        assert one.snapshot_id == evidence.info.snapshot_id
    assert [int(n) for n in re.findall(r"\[(\d+)\]", answer(found))] == [n.number for n in cited]


async def test_brackets_in_a_document_are_not_markers(generator: c.Generator) -> None:
    found = await events(generator, asked("how long is the cord of the kettle"))
    cited = [event for event in found if isinstance(event, c.Citation)]
    assert "80 cm long (7)." in answer(found)
    assert any("[7]" in TEXTS[one.document_id][one.char_start : one.char_end] for one in cited)


async def test_a_filter_decides_what_may_be_cited(generator: c.Generator) -> None:
    question = asked("the kettle boils water", filter=Equals("kind", "story"))
    found = await events(generator, question)
    assert {one.document_id for one in found if isinstance(one, c.Citation)} == {"tale"}
    nothing = await events(generator, replace(question, filter=Equals("kind", "law")))
    assert [type(event) for event in nothing] == [c.Evidence, c.Usage, c.Refusal]


@pytest.mark.parametrize(
    ("question", "field"),
    [
        (c.Question(text=" \n"), "question"),
        # A zero-width space and a bell cannot be seen.
        (c.Question(text="\u200b\x07"), "question"),
        (c.Question(text="x" * 40_000), "question"),
        (c.Question(text="x", max_tokens=5_000), "max_tokens"),
        (
            c.Question(text="x", history=[c.Turn("y", "", condensed="x" * 40_000)]),
            "history[0].condensed",
        ),
        (c.Question(text="x", documents=51), "documents"),
    ],
)
async def test_an_invalid_question_is_refused_with_its_field(
    generator: c.Generator, question: c.Question, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await events(generator, question)
    assert caught.value.field == field


async def test_an_unknown_collection_ends_before_the_first_event(generator: c.Generator) -> None:
    with pytest.raises(NotFound, match="is not served here"):
        async for _ in generator.generate(asked("x"), collection="nowhere"):
            raise AssertionError("an event came")


async def test_without_an_embedder_words_rank_and_the_end_reports_it(
    store: Path, embedder: WordEmbedder
) -> None:
    async with opened(OBJECT, store, embedder) as retriever:
        generator = GenerationService(retriever, EvidenceReader(retriever, None))
        found = await events(generator, asked("press the red button"))
    done = found[-1]
    assert isinstance(done, c.Done) and "ranked by words" in done.served_by.reason
    assert answer(found).startswith("Lamp manual: Press the red button to switch it on.")


async def test_a_failing_embedder_degrades_the_answer(store: Path, embedder: WordEmbedder) -> None:
    class Failing(WordEmbedder):
        async def embed(self, *given: object, **more: object) -> c.Embeddings:
            raise NotReady("the model is loading")

    async with opened(OBJECT, store, embedder) as retriever:
        generator = GenerationService(retriever, EvidenceReader(retriever, Failing(embedder.dim)))
        done = (await events(generator, asked("press the red button")))[-1]
    assert isinstance(done, c.Done)
    assert done.served_by.reason == "sentences are ranked by words: the model is loading"


async def test_citations_are_checked_against_the_served_documents(
    store: Path, embedder: WordEmbedder
) -> None:
    def cite(id: str, text: str) -> c.Citation:
        start = TEXTS[id].index(text)
        return c.Citation(
            number=1,
            document_id=id,
            chunk=0,
            char_start=start,
            char_end=start + len(text),
            text_hash=text_hash(text),
            snapshot_id="long-gone",
        )

    cited = [
        cite("kettle", "The kettle boils water in 3 minutes."),
        cite("lamp", "Press the red button to switch it on."),
        cite("lamp", "It glows for 9 hours on full batteries."),
        cite("tale", "Once a fox met a crow."),
    ]
    async with opened(OBJECT, store, embedder) as retriever:
        reply = await GenerationService(retriever, EvidenceReader(retriever, None)).verify(cited)
        assert {check.verdict for check in reply.checks} == {c.Verdict.VALID}
    changed = TEXTS["lamp"].replace("The lamp", "This small lamp").replace("9 hours", "8 hours")
    later = [ITEMS[0], replace(ITEMS[1], text=changed)]
    await build_snapshot(later, BuildOptions(store=str(store)), embedder)
    async with opened(OBJECT, store, embedder) as retriever:
        reply = await GenerationService(retriever, EvidenceReader(retriever, None)).verify(cited)
    assert [check.verdict for check in reply.checks] == [
        c.Verdict.VALID,
        c.Verdict.MOVED,
        c.Verdict.CHANGED,
        c.Verdict.GONE,
    ]
    moved = reply.checks[1]
    assert changed[moved.start : moved.end] == "Press the red button to switch it on."


class Hanging:
    """A retriever that never answers, and records when it was cancelled."""

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def search(self, *given: object, **more: object) -> c.SearchReply:
        self.asked.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        finally:
            self.left.set()


async def test_a_disconnected_or_timed_out_caller_stops_the_work() -> None:
    hanging = Hanging()
    service = GenerationService(hanging, EvidenceReader(hanging, None))  # type: ignore[arg-type]
    async with running([registration(service)]) as address, GenerationClient(address) as client:
        caller = asyncio.ensure_future(events(client, asked("anything")))
        async with asyncio.timeout(10):
            await hanging.asked.wait()
            caller.cancel()
            await hanging.left.wait()
        hanging.left.clear()
        with pytest.raises(DeadlineExceeded):
            async for _ in client.generate(asked("anything"), timeout_s=0.2):
                raise AssertionError("an event came")
        async with asyncio.timeout(10):
            await hanging.left.wait()


async def test_verify_needs_at_least_one_citation(generator: c.Generator) -> None:
    with pytest.raises(InvalidRequest, match=r"citations has 0 entries; 1\.\.1,024"):
        await generator.verify([])


class Backwards:
    """A reranker that prefers the lamp, or one that is unavailable."""

    def __init__(self, away: bool) -> None:
        self.away = away
        self.texts: list[str] = []

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        if self.away:
            raise NotReady("the cross-encoder is loading")
        self.texts += texts
        return [float("lamp" in text.lower()) for text in texts]


@pytest.mark.parametrize("away", [False, True])
async def test_a_reranker_decides_the_order_of_the_evidence(
    store: Path, embedder: WordEmbedder, away: bool
) -> None:
    reranker = Backwards(away)
    async with opened(OBJECT, store, embedder) as retriever:
        reader = EvidenceReader(retriever, embedder, reranker=reranker, rerank_chunks=20)
        generator = GenerationService(retriever, reader)
        found = await events(generator, asked("the kettle boils water", documents=1))
    evidence, done = found[0], found[-1]
    assert isinstance(evidence, c.Evidence) and isinstance(done, c.Done)
    assert [hit.id for hit in evidence.documents] == ["kettle" if away else "lamp"]
    why = "chunks are in the order of the search: the cross-encoder is loading" if away else ""
    assert done.served_by.reason == why


async def test_the_blocking_client_gives_the_same_answer(
    store: Path, embedder: WordEmbedder
) -> None:
    question = asked("descale the kettle with vinegar")
    async with opened(OBJECT, store, embedder) as retriever:
        service = GenerationService(retriever, EvidenceReader(retriever, embedder))
        async with running([registration(service)]) as address:

            def work() -> list[c.AnswerEvent]:
                with BlockingGenerationClient(address) as client:
                    found = list(client.generate(question))
                    cited = [event for event in found if isinstance(event, c.Citation)]
                    reply = client.verify(cited)
                    assert {one.verdict for one in reply.checks} == {c.Verdict.VALID}
                    with pytest.raises(Unsupported, match="sessions are disabled"):
                        client.session("none")
                    with pytest.raises(Unsupported, match="sessions are disabled"):
                        client.delete_session("none")
                    return found

            found = await asyncio.to_thread(work)
        assert answer(found) == answer(await events(service, question)) != ""


async def test_without_an_embedder_an_answer_is_written_from_hits_by_words(
    store: Path, embedder: WordEmbedder
) -> None:
    embedder.error = NotReady("10.0.0.1:7701 does not answer")
    async with opened(OBJECT, store, embedder) as retriever:
        service = GenerationService(retriever, EvidenceReader(retriever, embedder))
        found = await events(service, asked("descale the kettle with vinegar"))
        evidence, done = found[0], found[-1]
        assert isinstance(evidence, c.Evidence) and isinstance(done, c.Done)
        assert evidence.info.served_by.rung == c.LEXICAL_RUNG
        assert "Descale it with vinegar every month. [1]" in answer(found)
        assert done.served_by.reason.startswith("searched by words alone, since no embedder")
        assert "10.0.0.1:7701 does not answer" in done.served_by.reason
        # What is unknown does not make the question off topic.
        end = (await events(service, c.Question(text="Descale the kettle with vinegar")))[-1]
        assert not isinstance(end, c.Refusal) or end.reason is not c.RefusalReason.OFF_TOPIC
