"""Tests the shipped judge: its input, its weights, and what it says with the default model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedding.bert_weights import read_bert
from embedding.judges.answer_judge import (
    ADAPTER_FILE,
    CONTEXT_TOKENS,
    MAX_TOKENS,
    QUESTION_TOKENS,
    UNIT_TOKENS,
    answer_input,
    open_judge,
)
from embedding.judges.low_rank import JudgeEngine, adapt
from embedding.model import DEFAULT_MODEL, find_model, read_model
from embedding.pair_scorer import PairScorer
from embedding.pairs import TextPair
from embedding.settings import EmbeddingSettings
from nearline.contract import ANSWER_JUDGE, Lane
from tests.embedding.fakes import FakeBackend, expected, started, write_bert
from tests.optional_packages import needs

CLS, SEP = 2, 3
LIGHTHOUSE = "The Corvane lighthouse"
FACTS = [
    "It was built between 1841 and 1846 by the engineer Maria Holt.",
    "The tower is 38 metres high and painted in red and white bands.",
    "Until 1972 three keepers lived in it at a time.",
    "Its lamp, first fed with whale oil, was electrified in 1931.",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "model")


def test_the_first_of_several_lines_is_the_title(folder: Path) -> None:
    encode = answer_input(folder).encode
    assert encode("w0 w1", "w2\nw3 w4").tolist() == [CLS, 4, 5, SEP, 6, SEP, 7, 8, SEP]
    assert encode("w0", "w3 w4").tolist() == [CLS, 4, SEP, SEP, 7, 8, SEP]
    assert encode("w0", "\nw3\nw4").tolist() == [CLS, 4, SEP, SEP, 7, 8, SEP]


def test_each_part_is_cut_to_its_length(folder: Path) -> None:
    many = " ".join(["w5"] * 200)
    ids = answer_input(folder).encode(many, f"{many}\n{many}")
    assert len(ids) == MAX_TOKENS
    ends = np.flatnonzero(ids == SEP)
    assert np.diff(ends, prepend=0).tolist() == [
        QUESTION_TOKENS + 1,
        CONTEXT_TOKENS + 1,
        UNIT_TOKENS + 1,
    ]


def test_the_engine_scores_each_pair_in_its_place(folder: Path) -> None:
    backend = FakeBackend(pad_multiple=8)
    engine = JudgeEngine(answer_input(folder), backend)
    rows = engine.run([TextPair("w0", "w1\nw2", 9), TextPair("w3", "w4 w5", 9)], 0)
    texts = [[CLS, 4, SEP, 5, SEP, 6, SEP], [CLS, 7, SEP, SEP, 8, 9, SEP]]
    assert backend.batches == [texts]
    np.testing.assert_allclose(rows, [expected(text) for text in texts])


def test_the_change_is_added_to_the_weights(folder: Path) -> None:
    weights = read_bert(read_model(folder))
    assert weights is not None
    first, *others = weights.layers
    outputs, inputs = first.query.weight.shape
    down, up = np.ones((2, inputs), np.float32), np.full((outputs, 2), 0.5, np.float32)
    scale = np.full(len(first.norm.scale), 3.0, np.float32)
    adapted = adapt(
        weights,
        {"0.query.down": down, "0.query.up": up, "0.norm.scale": scale, "0.norm.shift": -scale},
    )
    changed, *rest = adapted.layers
    np.testing.assert_allclose(changed.query.weight, first.query.weight + 1.0, rtol=1e-6)
    assert changed.query.bias is first.query.bias and changed.key is first.key
    assert changed.norm.scale.tolist() == scale.tolist()
    assert changed.norm.shift.tolist() == (-scale).tolist()
    assert changed.attended_norm is first.attended_norm
    assert all(one.query is other.query for one, other in zip(rest, others, strict=True))


def test_only_the_default_model_on_openvino_has_the_judge(folder: Path) -> None:
    other = read_model(folder)
    assert open_judge(other, EmbeddingSettings()) is None
    default = replace(other, weights_sha256=find_default(folder))
    assert open_judge(default, EmbeddingSettings(judge=False)) is None
    assert open_judge(default, EmbeddingSettings(backend="torch")) is None


def find_default(folder: Path) -> str:
    return find_model(DEFAULT_MODEL, cache_folder=folder).weights_sha256


def test_the_shipped_change_is_small() -> None:
    change = load_file(ADAPTER_FILE)
    assert ADAPTER_FILE.stat().st_size < 4_000_000
    assert all(np.isfinite(part).all() for part in change.values())
    assert change["head.weight"].shape == (1, 384)


@asynccontextmanager
async def _shipped(folder: Path) -> AsyncIterator[PairScorer]:
    model = find_model(DEFAULT_MODEL, cache_folder=folder)
    judge = open_judge(model, EmbeddingSettings(threads=1))
    async with started(judge) as scorer:
        yield scorer


@needs("openvino", "embedding")
async def test_the_sentence_that_answers_is_best_and_silence_is_below_it(tmp_path: Path) -> None:
    texts = [f"{LIGHTHOUSE}\n{fact}" for fact in FACTS]
    answered = {
        "Who built the Corvane lighthouse?": 0,
        "How high is the tower?": 1,
        "How many keepers lived in the lighthouse?": 2,
        "When was the lamp electrified?": 3,
    }
    silent = [
        "How deep is the water around the reef?",
        "When was the tower last repainted?",
        "Where was Maria Holt born?",
        "What did the keepers eat?",
    ]
    async with _shipped(tmp_path) as judge:

        async def best(question: str) -> tuple[float, int]:
            scored = await judge.score([question] * len(texts), texts, Lane.INTERACTIVE, 60.0)
            rows = scored.rows
            return float(rows.max()), int(rows[:, 0].argmax())

        assert judge.name == ANSWER_JUDGE and len(judge.fingerprint) == 32
        found = {question: await best(question) for question in answered}
        assert {question: row for question, (_, row) in found.items()} == answered
        nothing = [(await best(question))[0] for question in silent]
        assert min(score for score, _ in found.values()) > max(nothing)
