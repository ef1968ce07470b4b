"""Tests of the figures for CPUs: they give back what was measured, and scale it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearline_cli.sizing.processors import (
    encoder_cores,
    exact_cores,
    graph_bytes,
    graph_cores,
    request_cores,
)

DOCS = Path(__file__).parents[3] / "docs"


def test_a_graph_has_the_bytes_of_the_guide() -> None:
    guide = (DOCS / "guides/index-types.md").read_text("utf-8")
    (per_vector,) = re.findall(r"`HNSW32,Flat` \| ([\d,]+) \|", guide)
    assert graph_bytes(10, 384) == 10 * int(per_vector.replace(",", ""))


def test_what_was_measured_comes_back() -> None:
    text = (DOCS / "performance.md").read_text("utf-8")
    (request_us, faiss_us) = re.findall(
        r"A request takes ([\d,]+) µs of the two cores.*?\(FAISS (\d+)\)", text, re.S
    )[0]
    request_us = int(request_us.replace(",", ""))
    assert graph_cores(49_000, 384, 1e6) == pytest.approx(request_us)
    assert request_cores(1e6) == pytest.approx(request_us - int(faiss_us))
    assert "batches of up to 64 searches" in text and "36 ms of processor time" in text
    assert exact_cores(49_000, 384, 64) - request_cores(64) == pytest.approx(36e-3)
    assert "512 tokens take about 30 ms on one core" in (DOCS / "reference/settings.md").read_text()
    assert encoder_cores(1, 512, 6, 384) == pytest.approx(30e-3)


def test_a_graph_search_grows_with_the_logarithm_and_an_exact_one_with_the_vectors() -> None:
    assert graph_cores(49_000**2, 384, 1e6) == pytest.approx(780 + 2 * 270)
    assert graph_cores(49_000, 768, 1e6) == pytest.approx(780 + 2 * 270)
    exact = exact_cores(49_000, 384, 1) - request_cores(1)
    assert exact_cores(490_000, 768, 1) - request_cores(1) == pytest.approx(20 * exact)


def test_a_larger_model_takes_as_much_longer_as_its_operations() -> None:
    # Twelve layers instead of six: twice the weights, and twice the attention.
    assert encoder_cores(1, 200, 12, 384) == pytest.approx(2 * encoder_cores(1, 200, 6, 384))
