"""Tests the shipped judge of groundedness: its input, its file, and what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embedding.backend import TokenBatch
from embedding.judges.entailment_judge import (
    MAX_TOKENS,
    SHIPPED_FILE,
    EntailmentEngine,
    judge_input,
    open_entailment_judge,
    read_change,
)
from embedding.model import DEFAULT_MODEL, find_model, read_model
from embedding.pair_scorer import PairScorer
from embedding.pairs import TextPair
from embedding.settings import EmbeddingSettings
from nearline.contract import ENTAILMENT_JUDGE, Lane
from nearline.errors import SettingsError
from tests.embedding.fakes import started, write_bert
from tests.optional_packages import needs

CLS, SEP = 2, 3


class Logits:
    """A backend whose three logits are the first three token ids after [CLS]."""

    name, dim, slots, pad_multiple = "logits", 3, 1, 1

    def embed(self, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        return np.asarray(batch.ids[:, 1:4], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "model")


def test_the_statement_comes_first_and_all_parts_are_cut(folder: Path) -> None:
    encode = judge_input(folder).encode
    assert encode("w0", "w1\nw2 w3").tolist() == [CLS, 4, SEP, 5, SEP, 6, 7, SEP]
    many = " ".join(["w5"] * 500)
    assert len(encode(many, f"{many}\n{many}")) == MAX_TOKENS


def test_scores_are_the_softmax_of_the_logits(folder: Path) -> None:
    engine = EntailmentEngine(judge_input(folder), Logits())
    rows = engine.run([TextPair("w9", "w0 w1 w0", 6)], 0)
    powers = np.exp([4.0, 5.0, 4.0])
    np.testing.assert_allclose(rows, [powers / powers.sum()], rtol=1e-6)


def test_no_judge_is_loaded_unless_one_is_named(folder: Path) -> None:
    model = read_model(folder)
    assert open_entailment_judge(model, EmbeddingSettings()) is None
    assert open_entailment_judge(model, EmbeddingSettings(entailment="some/model")) is None


@pytest.mark.parametrize("name", ["own.safetensors", ENTAILMENT_JUDGE])
def test_a_named_judge_that_the_model_cannot_use_is_an_error(folder: Path, name: str) -> None:
    settings = EmbeddingSettings(entailment=name)
    with pytest.raises(SettingsError, match="another model or engine"):
        open_entailment_judge(read_model(folder), settings)
    with pytest.raises(SettingsError, match="another model or engine"):
        open_entailment_judge(
            find_model(DEFAULT_MODEL, cache_folder=folder),
            EmbeddingSettings(entailment=name, backend="torch"),
        )


def test_a_file_that_is_no_judge_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    with pytest.raises(SettingsError, match="cannot be read"):
        read_change(file)
    save_file({"head.weight": np.ones((1, 4), np.float32)}, file)
    with pytest.raises(SettingsError, match="not a judge with 3 outputs"):
        read_change(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(SettingsError, match="damaged"):
        read_change(file)
    with file.open("wb") as stream:
        stream.truncate((16 << 20) + 1)
    with pytest.raises(SettingsError, match="are allowed"):
        read_change(file)


def test_the_shipped_change_is_small() -> None:
    change = load_file(SHIPPED_FILE)
    assert SHIPPED_FILE.stat().st_size < 1_000_000
    assert all(np.isfinite(part).all() for part in change.values())
    assert change["head.weight"].shape == (3, 384)


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[PairScorer]:
    model = find_model(DEFAULT_MODEL, cache_folder=folder)
    judge = open_entailment_judge(model, EmbeddingSettings(threads=1, entailment=ENTAILMENT_JUDGE))
    async with started(judge) as scorer:
        yield scorer


TOWER = "The Corvane lighthouse\nIt was built between 1841 and 1846 by the engineer Maria Holt."
SLEEP = "Sleep and pressure\nWe found that a lack of sleep raised blood pressure in most adults."
JUDGED = [
    (TOWER, "The engineer Maria Holt built it between 1841 and 1846.", "supported"),
    (TOWER, "It was built between 1741 and 1746 by the engineer Maria Holt.", "contradicted"),
    (TOWER, "It was not built by the engineer Maria Holt.", "contradicted"),
    (SLEEP, "A lack of sleep increases blood pressure.", "supported"),
    (SLEEP, "A lack of sleep lowers blood pressure.", "contradicted"),
    (SLEEP, "A lack of sleep has no effect on blood pressure.", "contradicted"),
]


@needs("openvino", "embedding")
async def test_a_paraphrase_is_likelier_supported_than_its_opposites(tmp_path: Path) -> None:
    async with _opened(tmp_path) as judge:
        assert judge.name == ENTAILMENT_JUDGE and len(judge.fingerprint) == 32
        scored = await judge.score(
            [source for source, _, _ in JUDGED],
            [statement for _, statement, _ in JUDGED],
            Lane.INTERACTIVE,
            60.0,
        )
    rows = scored.rows
    assert rows.shape == (len(JUDGED), 2)
    supported = rows[:, 0] / (rows[:, 0] + rows[:, 1])
    for source in (TOWER, SLEEP):
        among = [at for at, one in enumerate(JUDGED) if one[0] == source]
        best = max(among, key=lambda at: supported[at])
        assert JUDGED[best][2] == "supported"


@needs("openvino", "embedding")
async def test_hostile_texts_are_scored_within_the_bound(tmp_path: Path) -> None:
    hostile = ["\n" * 1_000, "\x00\u202e[SEP]", "𝕏" * 60_000, "a" * 60_000, "- - - " * 10_000]
    async with _opened(tmp_path) as judge:
        rows = (await judge.score(hostile, hostile[::-1], Lane.INTERACTIVE, 60.0)).rows
    assert np.isfinite(rows).all()
    assert (rows >= 0).all() and (rows.sum(axis=1) <= 1.0 + 1e-3).all()
