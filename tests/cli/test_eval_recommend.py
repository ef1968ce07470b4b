"""`nearline eval recommend` on a file, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearline.cli.main import app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Users go around a circle of 12 items, one step a day."""
    lines = ["who,what,when,how"]
    for step in range(9):
        for user in range(40):
            lines.append(f"u{user},i{(user * 5 + step) % 12},{step * 86_400},view")
    lines.append("u0,i0,soon,view")
    path = tmp_path / "events.csv"
    path.write_text("\n".join(lines), "utf-8")
    return path


def run(file: Path, *words: str) -> tuple[int, str]:
    columns = ("--user-column", "who", "--item-column", "what", "--time-column", "when")
    done = CliRunner().invoke(
        app, ["eval", "recommend", "--interactions", str(file), *columns, *words]
    )
    text = f"{done.output} {done.exception or ''}"
    return done.exit_code, text


def test_each_model_has_a_row(file: Path) -> None:
    code, text = run(file, "--split", "last-n:1", "--k", "3", "--json")
    assert code == 0
    rows = [json.loads(line) for line in text.strip().splitlines()]
    assert [row["model"] for row in rows] == [
        *("popular", "item_to_item", "als", "ease", "session", "blended"),
    ]
    assert rows[-1]["hit_rate@3"] == 1.0
    assert all(row["left_out"] == {"no readable time": 1} for row in rows)
    assert all(row["interactions"] == 360 and row["users"] == 40 for row in rows)


def test_more_places_than_items_are_no_error(file: Path) -> None:
    code, text = run(file, "--split", "cold-users:0.3", "--k", "50", "--json")
    assert code == 0
    assert all(json.loads(line)["users"] == 12 for line in text.strip().splitlines())


def test_a_table_is_for_people(file: Path) -> None:
    code, text = run(file, "--split", "time:0.8", "--repeats", "--k", "3")
    assert code == 0
    assert "buy_again" in text
    assert "validation_ndcg@3" in text


def test_a_page_is_written_beside_what_is_printed(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, text = run(file, "--split", "last-n:1", "--k", "3", "--html", str(page), "--json")
    assert code == 0
    rows = [json.loads(line) for line in text.strip().splitlines()]
    written = page.read_text("utf-8")
    assert "Recommendations from events.csv" in written
    assert all(f"{row['ndcg@3']:.4f}" in written for row in rows)
    assert "no readable time" in written


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--split", "cold-items:0.1"), "name it with --corpus FILE"),
        (("--corpus", "items.csv"), "only for cold-items:SHARE"),
        (("--split", "cold-items:0.1", "--corpus", "none.csv"), "there is no none.csv"),
        (("--html", "none/page.html"), "there is no folder none"),
        (("--split", "weekly"), "last-n:N"),
        (("--kind", "view"), "purchase=5"),
        (("--kind-column", "how", "--kind", "purchase=5"), "a kind that is not named"),
        (("--min-per-user", "50"), "loosen the rules"),
        (("--time-column", "then"), "who, what, when, how"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(
    file: Path, words: tuple[str, ...], remedy: str
) -> None:
    code, text = run(file, *words)
    assert code != 0
    assert remedy in text
