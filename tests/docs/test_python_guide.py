"""The page on Python: ten tasks of at most three lines each, which do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_tutorials import reading
from tests.nearline_cli.conftest import ROOT

PAGE = (ROOT / "docs" / "guides" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE, re.M | re.S)
TASKS = re.findall(
    r"^\*\*\d+\. [^\n]*\n(?:[^`\n][^\n]*\n)*\n```python \S+\n(.*?)^```$", PAGE, re.M | re.S
)
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][2:]
NOTES = "# Returns\n\nYou can send anything back within 30 days.\n"
PRODUCTS = (
    "sku,name,about,price,brand\n"
    "cup,Cup,A small cup of porcelain for espresso.,7.5,acme\n"
    "bowl,Bowl,A bowl for soup and cereals.,12,acme\n"
)


def test_ten_tasks_take_three_lines_each_at_most() -> None:
    assert len(TASKS) == 10
    assert all(len(task.splitlines()) <= 3 for task in TASKS)


def test_the_table_compares_each_task_with_four_systems() -> None:
    assert len(ROWS) == 10 and {len(row) for row in ROWS} == {6}
    code = "".join(TASKS)
    for row in ROWS:
        for name in re.findall(r"\b([a-z_]+)(?=\(|`)", row[1]):
            assert f".{name}(" in code, row


@pytest.mark.service
@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_page_runs_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    with reading(tmp_path) as reader:
        reader.save("notes/returns.md", NOTES)
        reader.save("products.csv", PRODUCTS)
        reader.save("page.py", "".join(f"print('--', '{name}')\n{code}" for name, code in BLOCKS))
        reader.run("nearline build --corpus notes --store ./store")
        reader.run("nearline up --store ./store")
        said = dict(
            part.partition("\n")[::2] for part in reader.run("python page.py").split("-- ")[1:]
        )
    assert list(said) == [name for name, _ in BLOCKS]
    assert {line.split()[0] for line in said["search"].splitlines()} == {"mug", "cup", "bowl"}
    assert said["suggest"] == "['Teapot'] \n"
    assert said["read"] == "9.5\n3\n['bowl', 'cup', 'mug', 'pot']\n"
    assert {line.split()[0] for line in said["like"].splitlines()} == {"pot", "cup", "bowl"}
    assert "'pot'" in said["people"] and "'mug'" not in said["people"]
    assert (
        said["ask"].startswith("Mug: A mug made of stoneware. [1] ['mug']")
        and "VALID" in said["ask"]
    )
    assert said["delete"] == "1\n"
    assert "SUCCEEDED" in said["queue"]
