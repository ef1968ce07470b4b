"""Tests of the texts and their vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.texts import made_up_texts, short_texts
from benchmarks.peers.vectors import main, sentence_vectors
from nearline.errors import InvalidRequest


def test_made_up_texts_are_distinct_short_and_the_same_for_a_seed() -> None:
    texts = made_up_texts(500, seed=3)
    assert texts == made_up_texts(500, seed=3)
    assert texts != made_up_texts(500, seed=4)
    assert len(set(texts)) == 500
    assert all(8 < len(text.split()) <= 31 for text in texts)


def test_vectors_of_made_up_texts_have_unit_length_and_near_neighbours() -> None:
    vectors = sentence_vectors(made_up_texts(1_000), dim=32)
    assert vectors.shape == (1_000, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1.0)
    # Texts of the same topic are near; most others are not.
    assert np.median(scores.max(axis=1)) > 3 * np.median(np.abs(scores))


def test_texts_of_corpora_are_their_titles_and_sentences(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    row = {"title": "A title of some length.", "text": "A first sentence of it. Short. The second."}
    corpus.write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n", "utf-8")
    assert short_texts(10, [corpus]) == ["A title of some length.", "A first sentence of it."]


def test_texts_without_shared_words_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="name more texts"):
        sentence_vectors(["one two", "three four"], dim=8)


def test_the_command_writes_the_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "vectors.npy"
    lines = [json.dumps({"text": text}) for text in made_up_texts(200)]
    corpus.write_text("\n".join(lines), "utf-8")
    assert main(["--out", str(out), "--dim", "16", str(corpus)]) == 0
    rows, dim = np.load(out).shape
    # A text whose words no other text has is left out.
    assert (190 <= rows <= 200, dim) == (True, 16)
    assert json.loads(capsys.readouterr().out)["vectors"] == rows
