"""Which changes are made, and which tests are asked about a module."""

from __future__ import annotations

import pytest

from tests.mutation.run import changed, draw, mutations, nearest_tests

PATH = "generation/pages.py"


def _changes(source: str) -> list[str]:
    """Lists the changed lines of all changes."""
    found = []
    for mutation in mutations(PATH, source):
        if code := changed(source, mutation):
            lines = zip(source.splitlines(), code.splitlines(), strict=True)
            found += [after.strip() for before, after in lines if before != after]
    return sorted(found)


def test_a_comparison_a_condition_and_a_number_each_change_alone() -> None:
    source = "def is_last(page, count):\n    if page >= count:\n        return page\n    return 0\n"
    assert _changes(source) == [
        "if not page >= count:",
        "if page < count:",
        "if page > count:",
        "return -1",
        "return 1",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "LIMIT = 1024 * 4\nclass Book:\n    pages: int | None = 3\n",
        "def page(number: int | None = 1, *rest, size: int = 2 + 3) -> str | None:\n    f(*rest)\n",
        "def turn(page):\n    _log.warning('%d', page + 1)\n    metrics.pages.inc(page - 1)\n",
        "def __str__(self):\n    return self.page + 1\n",
        "def turn(page):\n    raise PageError(f'no page {page + 1}', page + 1)\n",
        "def pairs(a, b):\n    assert len(a) > 1\n    zip(a, b, strict=True)\n",
    ],
)
def test_constants_types_defaults_messages_and_assertions_stay(source: str) -> None:
    assert _changes(source) == []


def test_the_same_seed_draws_the_same_changes_of_different_places() -> None:
    text = "\n".join(f"def {name}(a, b):\n    return a < b and a + 1\n" for name in "abcdefgh")
    sources = {PATH: text, "embedding/pages.py": text}
    drawn = list(draw(sources, 12, seed=7))
    assert len({(one.module_path, one.start_pos) for one in drawn}) == 12
    assert drawn == list(draw(sources, 12, seed=7)) != list(draw(sources, 12, seed=8))


def test_the_test_of_that_name_comes_first_then_importers_then_the_folder_then_their_users() -> (
    None
):
    sources = {"retrieval/search/executor.py": "from retrieval.search.merge import merged\n"}
    tests = {
        "tests/retrieval/search/deep/test_near.py": "",
        "tests/retrieval/search/test_near.py": "",
        "tests/retrieval/search/test_merge.py": "",
        "tests/retrieval/test_fan_out.py": "from retrieval.search import (\n    fan,\n    merge)",
        "tests/retrieval/test_executor.py": "from retrieval.search import executor\n",
    }
    assert nearest_tests("retrieval/search/merge.py", sources, tests) == [
        "tests/retrieval/search/test_merge.py",
        "tests/retrieval/test_fan_out.py",
        "tests/retrieval/search/test_near.py",
        "tests/retrieval/test_executor.py",
    ]
