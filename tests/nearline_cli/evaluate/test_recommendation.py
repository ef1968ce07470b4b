"""Tests of `nearline eval recommend` on a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearline_cli.app import app
from tests.redis_server import needs_redis
from tests.scale import nightly


def events(path: Path, users: int) -> Path:
    """Users go around a circle of 12 items, one step a day."""
    lines = ["who,what,when,how"]
    for step in range(9):
        for user in range(users):
            lines.append(f"u{user},i{(user * 5 + step) % 12},{step * 86_400},view")
    lines.append("u0,i0,soon,view")
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return events(tmp_path / "events.csv", 40)


def run(file: Path, *words: str, served: bool = False) -> tuple[int, str]:
    columns = ("--user-column", "who", "--item-column", "what", "--time-column", "when")
    asked = ("--served" if served else "--no-served",)
    done = CliRunner().invoke(
        app, ["eval", "recommend", "--interactions", str(file), *columns, *words, *asked]
    )
    text = f"{done.output} {done.exception or ''}"
    return done.exit_code, text


def test_each_model_has_a_row(file: Path) -> None:
    code, text = run(file, "--split", "last-n:1", "--k", "3", "--json")
    assert code == 0
    rows = [json.loads(line) for line in text.strip().splitlines()]
    assert [row["model"] for row in rows] == [
        *("popular", "item_to_item", "als", "ease", "session", "sequence", "blended"),
    ]
    assert rows[-1]["hit_rate@3"] == 1.0
    assert all(row["left_out"] == {"no readable time": 1} for row in rows)
    assert all(row["interactions"] == 360 and row["users"] == 40 for row in rows)


@pytest.mark.service
@needs_redis
@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("last-n:1", ()),
        pytest.param("time:0.8", ("--repeats",), marks=nightly),
        pytest.param("cold-users:0.3", (), marks=nightly),
    ],
)
def test_a_running_service_matches_the_blend(
    tmp_path: Path, split: str, words: tuple[str, ...]
) -> None:
    # With fewer users a build chooses no blend.
    file = events(tmp_path / "events.csv", 120)
    code, text = run(file, "--split", split, "--k", "3", "--json", *words, served=True)
    assert code == 0, text
    *_, blended, served = [json.loads(line) for line in text.strip().splitlines()]
    assert (blended["model"], served["model"]) == ("blended", "served")
    assert served["users"] == blended["users"]
    assert served["ndcg@3"] == pytest.approx(blended["ndcg@3"], abs=0.1)
    assert served["ndcg@3"] > 0.5 and served["served_ahead_low"] == 0
    assert "discounts" not in blended
    for kind in ("user", "similar"):
        rows = {
            one["popularity_debias"]: one for one in served["discounts"] if one["lists"] == kind
        }
        assert {0, 1} <= rows.keys() and sum(one["default"] for one in rows.values()) == 1
        assert rows[1]["novelty@3"] >= rows[0]["novelty@3"]
        (default,) = (one for one in rows.values() if one["default"])
        if kind == "user":
            assert (default["ndcg@3"], default["users"]) == (served["ndcg@3"], served["users"])


def test_lists_may_be_longer_than_the_catalogue(file: Path) -> None:
    code, text = run(file, "--split", "cold-users:0.3", "--k", "50", "--json")
    assert code == 0
    assert all(json.loads(line)["users"] == 12 for line in text.strip().splitlines())


def test_figures_are_printed_as_a_table(file: Path) -> None:
    code, text = run(file, "--split", "time:0.8", "--repeats", "--k", "3")
    assert code == 0
    assert "buy_again" in text
    assert "validation_ndcg@3" in text


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--split", "cold-items:0.1"), "name them with --corpus FILE"),
        (("--corpus", "items.csv"), "only for cold-items:SHARE"),
        (("--split", "cold-items:0.1", "--corpus", "none.csv"), "none.csv does not exist"),
        (("--split", "weekly"), "last-n:N"),
        (("--kind", "view"), "purchase=5"),
        (("--kind-column", "how", "--kind", "purchase=5"), "a kind that is not named"),
        (("--min-per-user", "50"), "loosen the rules"),
        (("--time-column", "then"), "who, what, when, how"),
    ],
)
def test_misuse_is_refused_with_a_remedy(file: Path, words: tuple[str, ...], remedy: str) -> None:
    code, text = run(file, *words)
    assert code != 0
    assert remedy in text


@pytest.mark.parametrize("split", ["last-n:5", "time:0.5"])
def test_too_little_validation_data_is_reported(tmp_path: Path, split: str) -> None:
    path = tmp_path / "two.csv"
    rows = ["a,1,1", "a,2,2", "a,3,3", "b,1,4", "b,2,5", "b,4,6"]
    path.write_text("\n".join(["who,what,when", *rows]), "utf-8")
    code, text = run(path, "--split", split)
    assert code == 1 and "InvalidRequest" not in text and "bug" not in text
    assert "leaves no user to choose a blend on" in text or "leaves no" in text
