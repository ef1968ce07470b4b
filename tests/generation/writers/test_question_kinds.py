"""Tests that a question's kind is found by its vector, with few calls of the embedder."""

from __future__ import annotations

import pytest

from generation.writers.question_kinds import AnswerKind, QuestionKinds
from nearline.errors import NotReady
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.small_snapshots import FINGERPRINT

WHEN = "When does the contract begin?"


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder(512)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (WHEN, AnswerKind.FACT),
        ("how do I clean the lamp?", AnswerKind.INSTRUCTION),
        ("this versus the other, which is better?", AnswerKind.COMPARISON),
        ("summarise the document.", AnswerKind.EXPLANATION),
    ],
)
async def test_the_nearest_prototypes_name_the_kind(
    embedder: WordEmbedder, question: str, kind: AnswerKind
) -> None:
    assert await QuestionKinds(embedder).of(question, None, FINGERPRINT, 5.0) is kind


async def test_prototypes_are_embedded_once_and_a_known_vector_is_reused(
    embedder: WordEmbedder,
) -> None:
    kinds = QuestionKinds(embedder)
    known = await embedder.embed([WHEN])
    for _ in range(2):
        assert await kinds.of("anything", known, FINGERPRINT, None) is AnswerKind.FACT
    prototypes = embedder.calls[1:]
    assert len(prototypes) == 1 and len(prototypes[0][0]) > 40
    # The vector of another model means nothing here, so the question is embedded again.
    embedder.fingerprint = "another"
    assert await kinds.of("compare the two.", known, "another", 0.5) is AnswerKind.COMPARISON
    again = embedder.calls[2:]
    assert [len(texts) for texts, _, _ in again] == [len(prototypes[0][0]), 1]
    assert [limit for _, _, limit in (*prototypes, *again)] == [2.0, 0.5, 0.5]


async def test_without_an_embedder_the_kind_is_unknown(embedder: WordEmbedder) -> None:
    assert await QuestionKinds(None).of(WHEN, None, FINGERPRINT, None) is AnswerKind.UNKNOWN
    kinds = QuestionKinds(embedder)
    assert await kinds.of(WHEN, None, "", None) is AnswerKind.UNKNOWN
    assert await kinds.of(WHEN, None, "another", None) is AnswerKind.UNKNOWN
    embedder.error = NotReady("it starts")
    assert await kinds.of(WHEN, None, FINGERPRINT, None) is AnswerKind.UNKNOWN
    embedder.error = None
    assert await kinds.of(WHEN, None, FINGERPRINT, None) is AnswerKind.FACT
