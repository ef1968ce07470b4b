"""Tests calibration from labelled questions: with a real search, and by numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from generation.evidence import confidence, sentence_features
from generation.evidence.calibration import DEFAULT_CALIBRATION
from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.logistic import LogisticModel
from generation.evidence.sources import list_passages
from generation.training import calibrator, eval_metrics, evaluation
from generation.training.calibrator import MIN_QUESTIONS, fit_calibration
from generation.training.dataset import DatasetBuilder, QuestionExample, RankingExample
from generation.training.labels import LabelledQuestion, LabelSpan
from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import DEFAULT_COLLECTION, Item, Question
from nearline.errors import InvalidRequest, NotReady
from tests.generation.conftest import ITEMS
from tests.retrieval.fakes import FakeEmbedder, WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

KETTLE = ITEMS[0].text
DESCALE = "Descale it with vinegar every month."


def _labelled(text: str, span: str = DESCALE, start: int | None = None) -> LabelledQuestion:
    at = KETTLE.index(span) if start is None else start
    return LabelledQuestion(
        id="1",
        text=text,
        spans={"kettle": [LabelSpan(at, at + len(span), span)]},
        cited=frozenset({"kettle"}),
    )


async def _observe(
    store: Path, embedder: WordEmbedder, question: LabelledQuestion, *, documents: int = 3
) -> QuestionExample:
    async with opened(OBJECT, store, embedder) as retriever:
        observer = DatasetBuilder(retriever, embedder, documents=documents)
        (observed,) = await observer.observe([question], inside=True, hide=True)
    return observed


async def test_the_sentence_that_contains_the_label_is_evidence(
    store: Path, embedder: WordEmbedder
) -> None:
    question = _labelled("vinegar to descale a kettle")
    observed = await _observe(store, embedder, question)
    async with opened(OBJECT, store, embedder) as retriever:
        found = await EvidenceReader(retriever, embedder).find(
            Question(text=question.text), DEFAULT_COLLECTION, None
        )
    said = [passage.text for passage in list_passages(found.sources)]
    assert [text for text, held in zip(said, observed.found.evidence, strict=True) if held] == [
        DESCALE
    ]
    assert observed.found.held.sum() == 1.0
    (inside,) = observed.inside
    # All four sentences of the document, whether a chunk with them was found or not.
    assert inside.evidence.tolist() == [False, True, False, False]
    assert inside.features.shape == (4, len(sentence_features.FEATURES))
    names = sentence_features.FEATURES
    judged = [names.index(name) for name in sentence_features.JUDGED]
    unjudged = np.delete(inside.features, judged, axis=1)
    assert np.isfinite(unjudged).all()
    assert set(observed.signals) == set(confidence.SIGNALS)


async def test_an_answer_within_a_sentence_makes_the_sentence_evidence(
    store: Path, embedder: WordEmbedder
) -> None:
    observed = await _observe(store, embedder, _labelled("kettle vinegar", "vinegar"))
    assert observed.inside[0].evidence.tolist() == [False, True, False, False]
    assert observed.inside[0].held[:, 0].tolist() == [0.0, 1.0, 0.0, 0.0]


async def test_a_label_of_another_text_is_refused(store: Path, embedder: WordEmbedder) -> None:
    with pytest.raises(InvalidRequest, match=r"document kettle has .* at 3, not 'Descale"):
        await _observe(store, embedder, _labelled("kettle", start=3))


async def test_without_the_embedding_service_nothing_is_learned(
    store: Path, embedder: WordEmbedder
) -> None:
    async with opened(OBJECT, store, embedder) as retriever:
        away = FakeEmbedder(embedder.dim)
        away.error = NotReady("it is away")
        with pytest.raises(NotReady, match="it is away; training data requires all services"):
            await DatasetBuilder(retriever, away).observe(
                [_labelled("kettle"), _labelled("vinegar")]
            )


async def test_the_nearest_documents_can_be_hidden(store: Path, embedder: WordEmbedder) -> None:
    asked = Question(text="vinegar to descale a kettle")
    async with opened(OBJECT, store, embedder) as retriever:
        reader = EvidenceReader(retriever, embedder)
        found = await reader.find(asked, DEFAULT_COLLECTION, None)
        beyond = await reader.find_beyond(asked, 1, DEFAULT_COLLECTION, None)
        nothing = await reader.find_beyond(asked, 3, DEFAULT_COLLECTION, None)
    assert found.sources[0].best.id == "kettle"
    assert {source.best.id for source in beyond.sources} == {"lamp", "tale"}
    texts = {item.id: item.text for item in ITEMS}
    for passage in list_passages(beyond.sources):
        name = beyond.sources[passage.document].best.id
        assert texts[name][passage.start : passage.end] == passage.text
    assert nothing.sources == []
    observed = await _observe(store, embedder, _labelled(asked.text))
    assert observed.hidden is not None
    assert observed.hidden["coverage_first"] < observed.signals["coverage_first"]


async def test_documents_after_a_long_document_are_found(
    tmp_path: Path, embedder: WordEmbedder
) -> None:
    long = " ".join(f"The kettle boils water in {number} minutes." for number in range(60))
    short = "# Tea\n\nTea needs a pot and a cup."
    items = [Item(id="long", text=long), Item(id="short", title="Guide", text=short)]
    chunks = ChunkOptions(max_tokens=12, overlap_sentences=0)
    built = await build_snapshot(items, BuildOptions(store=str(tmp_path), chunks=chunks), embedder)
    # More than the first search returns: 4 of the hidden document, and 20.
    assert built.chunks > 40
    async with opened(OBJECT, tmp_path, embedder) as retriever:
        beyond = await EvidenceReader(retriever, embedder).find_beyond(
            Question(text="kettle boils water"), 1, DEFAULT_COLLECTION, None
        )
    assert [source.best.id for source in beyond.sources] == ["short"]
    # Like `find`, with the headings above each sentence.
    assert beyond.context(0) == "Guide: Tea"


def test_questions_joined_by_documents_are_one_group() -> None:
    keys = [frozenset(one) for one in ("ab", "c", "bd", "", "de", "")]
    groups = calibrator.group_questions(keys).tolist()
    assert groups[0] == groups[2] == groups[4]
    assert len(set(groups)) == 4


def test_a_fitted_model_finds_the_sign_of_a_feature() -> None:
    rows = np.array([[-1.0, 5.0], [-0.5, 5.0], [0.5, 5.0], [1.0, np.nan]] * 10)
    model = calibrator.fit(rows, rows[:, 0] > 0, ("a", "b"))
    assert model.weights[0] > 0.5 and model.weights[1] == model.bias == pytest.approx(0.0)
    logits = model.score(rows, ["a", "b"])
    assert (logits > 0).tolist() == (rows[:, 0] > 0).tolist()


def test_cross_validation_learns_nothing_of_the_group_that_it_scores() -> None:
    # One feature per group, which reveals its label only to a model trained on the group.
    groups = np.repeat(np.arange(20), 4)
    target = groups % 2 == 0
    rows = np.eye(20)[groups]
    names = [str(number) for number in range(20)]
    seen = calibrator.fit(rows, target, names).score(rows, names)
    assert eval_metrics.auroc(seen[target], seen[~target]) == 1.0
    blind = calibrator.cross_validated(rows, target, groups, names)
    assert len(set(blind.round(9).tolist())) <= 5


@pytest.mark.parametrize("mixed", [0, 1])
def test_a_group_is_scored_with_0_if_the_others_have_one_label(mixed: int) -> None:
    # The two groups are held out one after the other; the mixed one is the first or the second.
    groups = np.repeat([0, 1], 4)
    rows = np.tile([[-2.0], [-1.0], [1.0], [2.0]], (2, 1))
    target = (rows[:, 0] > 0) & (groups == mixed)
    logits = calibrator.cross_validated(rows, target, groups, ("a",))
    assert (logits[groups == mixed] == 0.0).all()
    assert ((logits > 0) == (rows[:, 0] > 0))[groups != mixed].all()


def _observed(number: int, *, answerable: bool, rng: np.random.Generator) -> QuestionExample:
    """Makes a question whose evidence sentence, of four, is the longest."""
    signals = {name: float(rng.normal()) for name in confidence.SIGNALS}
    signals["coverage_first"] += 3.0 * answerable
    hidden = {name: value - 6.0 for name, value in signals.items()}
    document = f"d{number}"
    features = rng.normal(size=(4, len(sentence_features.FEATURES)))
    gold = int(features[:, sentence_features.FEATURES.index("length")].argmax())
    held = np.eye(4)[:, [gold]] if answerable else np.zeros((4, 0))
    ranked = RankingExample(features=features, held=held, evidence=held.sum(axis=1) > 0)
    return QuestionExample(
        question=LabelledQuestion(
            id=document,
            text="?",
            spans={document: [LabelSpan(0, 1, "a")]} if answerable else {},
            cited=frozenset({document}),
        ),
        found=ranked,
        inside=[ranked] if answerable else [],
        signals=signals,
        hidden=hidden,
    )


def _both(count: int, rng: np.random.Generator) -> list[QuestionExample]:
    return [_observed(number, answerable=number % 2 == 0, rng=rng) for number in range(2 * count)]


def test_a_calibration_meets_the_target_on_unseen_questions(
    rng: np.random.Generator,
) -> None:
    learned = fit_calibration(_both(200, rng), target_risk=0.1)
    told = learned.learned
    assert told is not None and (told.questions, told.answerable) == (400, 200)
    assert told.risk <= 0.1 and told.coverage > 0.3
    assert told.topic_auroc > 0.99 and told.evidence_auroc > 0.9
    judged = evaluation.evaluate_calibration(learned, _both(400, rng))
    assert judged.operating.risk == pytest.approx(0.1, abs=0.05)
    assert judged.recall_inside[3] == judged.recall_found[3] == pytest.approx(1.0, abs=0.05)
    assert judged.kept == pytest.approx(0.98, abs=0.03)
    assert judged.no_evidence is not None and judged.no_evidence > 0.9
    assert (judged.off_topic, judged.strange_kept) == (None, None)
    assert judged.answerable_kept is not None and judged.unanswerable_refused is not None
    # As many questions have an answer as have none.
    assert judged.operating.coverage == pytest.approx(
        (judged.answerable_kept + 1 - judged.unanswerable_refused) / 2
    )


def test_what_is_answered_is_on_topic(rng: np.random.Generator) -> None:
    def constant(logit: float) -> LogisticModel:
        return LogisticModel.of({}, logit, confidence.SIGNALS)

    found = [_observed(number, answerable=True, rng=rng) for number in range(4)]
    for evidence, kept in ((3.0, 1.0), (-3.0, 0.0)):
        strict = dataclasses.replace(
            DEFAULT_CALIBRATION,
            topic=constant(-3.0),
            evidence=constant(evidence),
            topic_threshold=0.5,
        )
        told = evaluation.evaluate_calibration(strict, found, found)
        assert (told.kept, told.strange_kept, told.answerable_kept) == (kept, kept, kept)


def test_a_lower_target_refuses_more(rng: np.random.Generator) -> None:
    observed = _both(150, rng)
    strict, loose = (fit_calibration(observed, target_risk=risk) for risk in (0.02, 0.3))
    assert strict.evidence_threshold > loose.evidence_threshold
    assert strict.learned is not None and loose.learned is not None
    assert strict.learned.coverage < loose.learned.coverage


def test_the_sentence_model_uses_the_named_features(rng: np.random.Generator) -> None:
    observed = _both(60, rng)
    assert fit_calibration(observed).sentences.names == sentence_features.FEATURES
    given = fit_calibration(observed, sentence_features=("length", "numbers")).sentences
    assert given.names == ("length", "numbers") and given.weights[0] > 0.5


def test_without_sentences_or_hidden_documents_the_defaults_stay(
    rng: np.random.Generator,
) -> None:
    nothing = RankingExample(
        features=np.empty((0, len(sentence_features.FEATURES))),
        held=np.empty((0, 1)),
        evidence=np.empty(0, np.bool_),
    )
    bare = [
        QuestionExample(
            question=one.question, found=nothing, inside=[], signals=one.signals, hidden=None
        )
        for one in _both(60, rng)
    ]
    learned = fit_calibration(bare)
    assert (
        learned.sentences is DEFAULT_CALIBRATION.sentences
        and learned.topic is DEFAULT_CALIBRATION.topic
    )
    assert learned.calibrated
    # No evidence was found, so recall is 0.
    assert evaluation.evaluate_calibration(learned, bare).recall_found[5] == 0.0


def test_too_few_questions_of_a_kind_are_refused(rng: np.random.Generator) -> None:
    few = [_observed(number, answerable=number != 0, rng=rng) for number in range(80)]
    with pytest.raises(InvalidRequest, match=f"80 .*, 1 of them without .*{MIN_QUESTIONS} are"):
        fit_calibration(few)
