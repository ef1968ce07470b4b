"""Tests of the HTML report of `nearline eval recommend`."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from index_builder.behaviour.cold_item_evaluation import evaluate_cold_items
from index_builder.behaviour.model_evaluation import Evaluation, evaluate, result_rows
from index_builder.interactions.records import Interactions
from nearline.times import DAY_US
from nearline_cli.evaluate.recommendation_report import describe_split, render_recommendation_report

K = 3
NASTY = "<script>alert('a & b')</script>"


@pytest.fixture(scope="module")
def circle() -> Interactions:
    """Users go around a circle of 20 items, one step a day."""
    rows = [(user, (user * 5 + step) % 20) for step in range(9) for user in range(40)]
    user, item = np.array(rows, np.int32).T
    users, items = ([f"{kind}{number}" for number in range(40)] for kind in "ui")
    times = np.arange(len(rows)) * DAY_US
    return Interactions(users, items[:20], user, item, times, np.ones(len(rows), np.float32))


@pytest.fixture(scope="module")
def blended(circle: Interactions) -> Evaluation:
    return evaluate(circle, "last-n:1", K)


class Page(HTMLParser):
    """Tags and attributes of a page, and whether every one is closed."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def about(split: str, **more: object) -> dict[str, object]:
    return {"split": split, "interactions": 360, "left_out": {"no readable time": 1234}, **more}


def test_it_shows_each_model_with_its_interval_and_the_chosen_settings(blended: Evaluation) -> None:
    rows = result_rows(blended, K)
    page = Page(
        render_recommendation_report(
            "circle.csv", blended, rows, about("last-n:1", repeats=True), K
        )
    )
    assert page.open == []
    for row in rows:
        interval = f"{row['ndcg@3']:.4f}, {row['ndcg@3_low']:.4f} to {row['ndcg@3_high']:.4f}"
        assert ("aria-label", interval) in page.attributes
    assert page.tags.count("svg") == 2 * len(rows)
    assert describe_split("last-n:1") in page.words
    assert "may be recommended again" in page.words
    assert "1,234" in page.words
    assert str(rows[-1]["settings"]) in page.words
    choice = blended.choice
    assert choice is not None
    for name, ndcg in choice.alone.items():
        assert name in page.words
        assert f"{ndcg:.4f}" in page.words


def test_bars_are_scaled_to_the_largest_upper_bound(blended: Evaluation) -> None:
    rows = result_rows(blended, K)
    text = render_recommendation_report("circle.csv", blended, rows, about("last-n:1"), K)
    most = max(float(str(row["ndcg@3_high"])) for row in rows)
    widths = [float(found) for found in re.findall(r'<rect [^>]*width="([0-9.]+)"', text)]
    expected = [float(str(row["ndcg@3"])) / most * 300 for row in rows]
    assert widths[: len(rows)] == pytest.approx(expected, abs=0.06)
    ends = [float(found) for found in re.findall(r'<line [^>]*x2="([0-9.]+)"', text)]
    assert max(ends) == 300


def test_held_out_items_have_their_settings_and_omissions(circle: Interactions) -> None:
    angle = np.arange(20) / 20 * 2 * np.pi
    content = np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    evaluation = evaluate_cold_items(circle, "cold-items:0.3", K, content)
    told = about("cold-items:0.3", models_left_out="popular, als", items_without_text=5_678)
    rows = result_rows(evaluation, K)
    page = Page(render_recommendation_report("circle.csv", evaluation, rows, told, K))
    assert page.open == []
    for share in evaluation.content_fit.values():
        assert f"{share:.4f}" in page.words
    for words in ("content_average", "popular, als", "5,678", "a random share of 0.3 of the items"):
        assert words in page.words


def test_data_are_escaped_and_nothing_is_fetched(blended: Evaluation) -> None:
    rows = [row | {"model": NASTY, "settings": NASTY} for row in map(dict, result_rows(blended, K))]
    told = about("last-n:1") | {"left_out": {NASTY: 1}}
    page = Page(render_recommendation_report(NASTY, blended, rows, told, K))
    assert "script" not in page.tags
    assert page.words.count("alert('a & b')") == 7 + 3 * len(rows)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert not {"link", "img", "iframe"} & set(page.tags)


@pytest.mark.parametrize(
    "split", ["last-n:10", "first-n:2", "time:0.8", "loo", "cold-users:1/5", "cold-items:0.1"]
)
def test_every_split_has_a_description(split: str) -> None:
    words = describe_split(split)
    assert split.partition(":")[2] in words
    assert "{" not in words
