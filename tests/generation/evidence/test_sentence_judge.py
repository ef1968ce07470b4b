"""Tests when sentences are judged, how they are shown to the judge, and that failures are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from generation.evidence import evidence_reader
from generation.evidence.calibration import (
    DEFAULT_CALIBRATION,
    JUDGED_DEFAULT,
    CalibrationStats,
    choose_calibration,
)
from generation.evidence.evidence_reader import MAX_EMBEDDED_SENTENCES, EvidenceReader
from generation.evidence.sentence_features import FEATURES
from generation.evidence.sentence_judge import SentenceJudge
from nearline import contract as c
from nearline.errors import NearlineError, NotReady
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

DOCUMENT = c.TextRole.DOCUMENT
CARD = c.EmbedderInfo(
    model="m",
    fingerprint="f",
    dim=8,
    max_tokens=8,
    max_texts=8,
    max_characters=8,
    max_queued_tokens=8,
    backend="b",
    min_cosine=1.0,
    tokens_per_second=1.0,
    reranker=c.ANSWER_JUDGE,
)


class Service:
    """Scores a text by its length; `error` is raised instead."""

    def __init__(self, reranker: str = c.ANSWER_JUDGE, error: NearlineError | None = None) -> None:
        self.reranker, self.error = reranker, error
        self.cards, self.asked = 0, list[tuple[str, list[str], float | None]]()

    async def info(self) -> c.EmbedderInfo:
        self.cards += 1
        await asyncio.sleep(0)
        if isinstance(self.error, NotReady):
            raise self.error
        return replace(CARD, reranker=self.reranker)

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        if self.error is not None:
            raise self.error
        self.asked.append((query, list(texts), timeout_s))
        return [float(len(text)) for text in texts]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_judge_reads_a_title_on_one_line_and_the_sentence() -> None:
    service = Service()
    texts = [("A  title\nof two", "One."), ("", "Two\nlines.")]
    scores, why = await SentenceJudge(service).score("which?", texts, 1.5)
    assert service.asked == [("which?", ["A title of two\nOne.", "\nTwo\nlines."], 1.5)]
    assert scores is not None and scores.tolist() == [19.0, 11.0] and why == ""
    assert await SentenceJudge(service).score("which?", [], 1.5) == (None, "")


@pytest.mark.parametrize("reranker", ["", "somebody's reranker"])
async def test_another_reranker_is_not_asked(reranker: str) -> None:
    service = Service(reranker)
    assert await SentenceJudge(service).score("q", [("", "a")], 1.0) == (None, "")
    assert not service.asked


async def test_a_judge_that_fails_is_told() -> None:
    from nearline.errors import Overloaded

    scores, why = await SentenceJudge(Service(error=Overloaded("too much"))).score(
        "q", [("", "a")], 1.0
    )
    assert scores is None and why == "sentences are not judged: too much"


async def test_the_card_is_read_once_a_minute_also_by_concurrent_questions() -> None:
    service, clock = Service(error=NotReady("starting")), Clock()
    judge = SentenceJudge(service, clock)

    async def scored() -> int:
        calls = [judge.score("q", [("", "a")], 1.0) for _ in range(5)]
        return sum(scores is not None for scores, _ in await asyncio.gather(*calls))

    assert (await scored(), service.cards) == (0, 1)
    service.error = None
    clock.now = 59.0
    assert (await scored(), service.cards) == (0, 1)
    clock.now = 60.0
    assert (await scored(), service.cards) == (5, 2)


async def test_shortlisted_units_have_the_logits_of_the_judge(
    store: Path, embedder: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = c.Question(text="descale the kettle with vinegar")
    async with opened(OBJECT, store, embedder) as retriever:
        plain = EvidenceReader(retriever, embedder)
        found = await plain.find(asked, c.DEFAULT_COLLECTION, None)
        service = Service()
        reader = EvidenceReader(retriever, embedder, judge=SentenceJudge(service))
        monkeypatch.setattr(evidence_reader, "MAX_JUDGED_SENTENCES", 2)
        reading = await reader.read(found, None)
        ((query, texts, _),) = service.asked
        assert query == asked.text and len(texts) == 2
        judged = reading.features[:, FEATURES.index("answer")]
        for row, unit in enumerate(found.units):
            line = f"{found.context(row)}\n{unit.text}"
            assert judged[row] == (len(line) if line in texts else min(map(len, texts)))
        assert reading.judged and reading.signals["answer_best"] == max(map(len, texts))
        assert not (await plain.read(found, None)).judged
        service.error = NearlineError("broken")
        degraded = await reader.read(found, None)
        assert degraded.degraded == "sentences are not judged: broken" and not degraded.judged


async def test_what_a_judge_reads_is_not_embedded(store: Path, embedder: WordEmbedder) -> None:
    asked = c.Question(text="descale the kettle with vinegar")

    async def embedded(judge: SentenceJudge | None) -> int:
        counting = WordEmbedder(embedder.dim)
        async with opened(OBJECT, store, embedder) as retriever:
            reader = EvidenceReader(retriever, counting, judge=judge)
            found = await reader.find(asked, c.DEFAULT_COLLECTION, None)
            assert len(found.units) > MAX_EMBEDDED_SENTENCES
            await reader.read(found, None)
        return sum(len(texts) for texts, role, _ in counting.calls if role is DOCUMENT)

    assert await embedded(SentenceJudge(Service())) == 0
    # A reranker that is no judge reads nothing, and without the judge's logits cosines help.
    assert await embedded(SentenceJudge(Service("other"))) == MAX_EMBEDDED_SENTENCES
    assert await embedded(SentenceJudge(Service(error=NearlineError("x")))) > 0
    assert await embedded(None) == MAX_EMBEDDED_SENTENCES


def test_only_the_default_depends_on_the_judge() -> None:
    assert choose_calibration(DEFAULT_CALIBRATION, judged=True) is JUDGED_DEFAULT
    assert choose_calibration(DEFAULT_CALIBRATION, judged=False) is DEFAULT_CALIBRATION
    assert "answer" in JUDGED_DEFAULT.sentences.names
    assert "answer" not in DEFAULT_CALIBRATION.sentences.names
    stats = CalibrationStats(
        questions=9, answerable=5, topic_auroc=1.0, evidence_auroc=1.0, coverage=1.0, risk=0.0
    )
    own = replace(DEFAULT_CALIBRATION, learned=stats)
    assert choose_calibration(own, judged=True) is own
