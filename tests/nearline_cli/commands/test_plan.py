"""Tests of `nearline plan`."""

from __future__ import annotations

import json

import pytest

from tests.nearline_cli.conftest import Run

WORDS = ("plan", "--vectors", "10M", "--queries", "8000", "--texts", "15k")


def test_a_plan_has_cards_and_cores_for_search_and_embedding(nearline: Run) -> None:
    shown = nearline(*WORDS, "--gpu", "l4").stdout
    for part in (
        "l4: 24 GB, 0.3 TB/s, 121 TFLOP/s",
        "7.68 GB",
        "crossover of arithmetic",
        "HNSW32 on CPUs",
        "price of exact search",
        "embedding on GPUs",
        "assumed, not measured",
    ):
        assert part in shown


def test_json_has_the_same_figures_unrounded(nearline: Run) -> None:
    plan = json.loads(nearline(*WORDS, "--json").stdout)
    assert plan["card"] == {"memory": 80e9, "bandwidth": 3.35e12, "flops": 989e12}
    search = plan["search"]
    assert search["bytes"] == 7.68e9 and search["cards"] == 1
    assert search["read_qps"] == pytest.approx(64 * 0.7 * 3.35e12 / 7.68e9)
    assert search["arithmetic_qps"] == pytest.approx(0.5 * 989e12 / 7.68e9)
    assert plan["search_on_cpu"]["exact_queries_per_request"] == 200
    assert plan["embedding"]["flop_per_token"] == 21_233_664 + 6 * 4 * 200 * 384
    assert plan["embedding_on_cpu"]["cores"] == pytest.approx(15_000 * 200 * 30e-3 / 512)


def test_a_part_that_is_not_asked_for_is_left_out(nearline: Run) -> None:
    assert "embedding" not in json.loads(nearline("plan", "--vectors", "1M", "--json").stdout)
    assert "search" not in json.loads(nearline("plan", "--texts", "10", "--json").stdout)


def test_figures_of_another_card_replace_those_of_the_datasheet(nearline: Run) -> None:
    words = ("--memory", "48G", "--bandwidth", "864G", "--flops", "362T")
    plan = json.loads(nearline(*WORDS, *words, "--json").stdout)
    assert plan["card"] == {"memory": 48e9, "bandwidth": 864e9, "flops": 362e12}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "give --vectors, --texts or both"),
        (("--vectors", "1M", "--gpu", "abacus"), "choose h200, h100, a100, l4, t4"),
        (
            ("--vectors", "1M", "--gpu", "t4", "--scratch", "16G"),
            "leaves nothing of the card's 16 GB",
        ),
        (("--vectors", "many"), "write 8000, 15k, 10M"),
        (("--vectors", "1M", "--batch", "1025"), "less than or equal to 1024"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_remedy(
    nearline: Run, words: tuple[str, ...], text: str
) -> None:
    done = nearline("plan", *words)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())
