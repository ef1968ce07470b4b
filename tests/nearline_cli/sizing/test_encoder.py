"""Tests of embedding on GPUs, against the sizes of MiniLM-L6."""

from __future__ import annotations

import pytest

from nearline_cli.sizing.cards import Card
from nearline_cli.sizing.encoder import flop_per_token, layer_parameters, plan_encoder


def test_minilm_has_ten_million_weights_in_its_layers() -> None:
    assert layer_parameters(6, 384) == 10_616_832


def test_a_token_takes_two_operations_a_weight_and_attention() -> None:
    assert flop_per_token(6, 384, 0) == 21_233_664
    # Scores and sums of 200 tokens x 384 numbers, two operations each, in six layers.
    assert flop_per_token(6, 384, 200) - flop_per_token(6, 384, 0) == 6 * 2 * 2 * 200 * 384


def test_texts_per_second_are_operations_by_those_of_a_text() -> None:
    card = Card(memory=1, bandwidth=1, flops=1e12)
    found = plan_encoder(card, texts=500, tokens=100, layers=6, width=384, load=0.5)
    needed = 100 * (21_233_664 + 6 * 4 * 100 * 384)
    assert found.texts_per_s == pytest.approx(1e12 / needed)
    # 451 texts/s, of which half are planned with.
    assert found.cards == 3
